"""What tells an agent who is calling: a signed JWT in `Elizacloud-Assertion`, for that agent and for a minute at most.

    typ elizacloud-assertion+jwt; iss, aud `agent:{id}`, sub the owner, iat, exp; kind how the caller showed who they are;
    caller the id of their token, when they have one

The key and `iss` are of their own, so that neither relay nor API takes one for a credential. A signature costs some 50 us,
so one serves all requests of a caller until a third of its life is left.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from elizacloud.auth.jose import Signer
from elizacloud.auth.jwt import ASSERTION_TYP, audience_of
from elizacloud.relay.callers.caller import Caller
from elizacloud.upstreams import AssertionKey, UpstreamTable

LIFETIME_SECONDS = 60
_MOST = 4096

_About = tuple[str, str, str, str | None]


class Assertions:
    """One a worker."""

    def __init__(self, table: UpstreamTable, clock: Callable[[], float] = time.time) -> None:
        self._table = table
        self._clock = clock
        self._key: AssertionKey | None = None
        self._signer: Signer | None = None
        self._lines: dict[_About, tuple[bytes, float]] = {}
        """For each caller of each agent: the header line, and when it is due to be renewed."""

    def line(self, agent_id: str, caller: Caller) -> bytes:
        """The header line for the agent; empty while no key is known."""
        key = self._table.assertion_key
        if key is not self._key:
            self._take(key)
        if self._signer is None:
            return b""
        credential = caller.credential
        about = (agent_id, caller.owner_id, credential.kind, credential.token_id)
        now = self._clock()
        line, due_at = self._lines.get(about, (b"", 0.0))
        # A clock that was set back must not make one outlive its minute by far.
        if not due_at - LIFETIME_SECONDS <= now < due_at:
            line = self._sign(self._signer, about, int(now))
            if len(self._lines) >= _MOST:
                self._lines.clear()
            self._lines[about] = line, int(now) + LIFETIME_SECONDS * 2 / 3
        return line

    def _take(self, key: AssertionKey | None) -> None:
        self._key = key
        self._signer = None if key is None else Signer(key.kid, key.private_jwk)
        self._lines.clear()

    def _sign(self, signer: Signer, about: _About, now: int) -> bytes:
        assert self._key is not None
        agent_id, owner_id, kind, token_id = about
        claims: dict[str, object] = {
            "iss": self._key.issuer,
            "aud": audience_of(agent_id),
            "sub": owner_id,
            "iat": now,
            "exp": now + LIFETIME_SECONDS,
            "kind": str(kind),
        }
        if token_id is not None:
            claims["caller"] = token_id
        return f"Elizacloud-Assertion: {signer.sign(claims, typ=ASSERTION_TYP)}\r\n".encode("ascii")
