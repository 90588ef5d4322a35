"""Who asks, and may they reach this agent: the rules of auth/access.py on a worker's own copy of the tokens.

One place for every method and for upgrades. Bearer only: nothing that a browser sends by itself is a credential here.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple, Protocol

from elizacloud.auth.access import Action, check_agent, principal_of
from elizacloud.auth.tokens import parse_bearer, token_sha256
from elizacloud.errors import NotFound, Unauthenticated, Unavailable
from elizacloud.model import Scope, utc_now
from elizacloud.relay.http1.head import RequestHead
from elizacloud.upstreams import KnownToken, UpstreamTable

_OWNER = b"elizacloud-owner"
_OWNERS = frozenset({Scope.OWNER, Scope.SERVICE})
_MAX_SEEN = 1024


class Link(Protocol):
    """What the decision rests on, and whether it may still rest on it."""

    @property
    def table(self) -> UpstreamTable: ...

    @property
    def known(self) -> bool: ...

    @property
    def tokens_honoured(self) -> bool: ...


class Caller(NamedTuple):
    """Who may reach an agent, seen from that agent."""

    owner_id: str
    """The agent's owner, whose budget the request uses."""
    is_owner: bool
    """The token is the owner's own (or a platform's that acts for them), not one that only reaches agents."""


class Access:
    def __init__(self, link: Link, now: Callable[[], datetime] = utc_now) -> None:
        self._link = link
        self._now = now
        self._seen: dict[str | None, KnownToken] = {}
        """Headers that were hashed before; what counts is whether the table still has the token."""

    def check(self, head: RequestHead, agent_id: str) -> Caller:
        """The caller, who may reach the agent.

        Raises Unauthenticated, Forbidden, Invalid, NotFound (also for somebody else's agent), and Unavailable when
        this worker has not heard from the control plane for so long that it cannot tell.
        """
        if not self._link.tokens_honoured:
            raise Unavailable(
                "cannot check the token: the control plane has not been heard for too long; try again later",
                code="control_plane_unavailable",
                retry_after_seconds=5,
            )
        authorization, named_owner = _credentials(head)
        table = self._link.table
        principal = principal_of(self._token(authorization, table), self._now())
        agent = table.upstreams.get(agent_id) or table.agents.get(agent_id)
        if agent is None:
            raise NotFound("cannot find this agent: check its id and the token's owner", code="agent_not_found")
        check_agent(principal, Action.REACH, agent_id=agent_id, agent_owner_id=agent.owner_id, named_owner=named_owner)
        return Caller(agent.owner_id, not principal.scopes.isdisjoint(_OWNERS))

    def _token(self, authorization: str | None, table: UpstreamTable) -> KnownToken | None:
        """The token that the header carries, if the table has it now. Raises Unauthenticated."""
        seen = self._seen.get(authorization)
        if seen is not None and table.tokens.get(seen.sha256) is seen:
            return seen
        # The look-up is by hash, so its timing tells nothing about any token's value.
        token = table.tokens.get(token_sha256(parse_bearer(authorization)))
        if token is not None:
            if len(self._seen) >= _MAX_SEEN:
                self._seen.clear()
            self._seen[authorization] = token
        return token


def _credentials(head: RequestHead) -> tuple[str | None, str | None]:
    """The Authorization and Elizacloud-Owner values. Two of one kind are refused: somebody would read the other one."""
    found: dict[bytes, str] = {}
    for lower, _, value in head.fields:
        if lower in (b"authorization", _OWNER):
            if lower in found:
                raise Unauthenticated(
                    "cannot tell who is calling: the request has two Authorization or Elizacloud-Owner headers",
                    code="malformed_credential",
                )
            found[lower] = value.decode("latin-1")
    return found.get(b"authorization"), found.get(_OWNER)
