"""The three credentials of a run: the agent's own API token, and the two that its container reports with.

They are minted anew for each run and live in memory until its instance has started. The store keeps the agent's token
sealed, since relays put it on every request, and of the other two the SHA-256 only.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace

from pydantic import SecretStr

from elizacloud.errors import Unauthenticated
from elizacloud.model import Run
from elizacloud.runtime.protocol import InstanceSecrets


@dataclass(frozen=True, slots=True)
class Credentials:
    agent_token: SecretStr
    join_token: SecretStr
    busy_token: SecretStr

    def on(self, run: Run) -> Run:
        """The run as it is stored with these credentials."""
        return replace(
            run,
            agent_token=self.agent_token,
            join_token_sha256=_sha256(self.join_token),
            busy_token_sha256=_sha256(self.busy_token),
        )

    def with_key(self, preauth_key: SecretStr | None) -> InstanceSecrets:
        return InstanceSecrets(preauth_key, self.agent_token, self.join_token, self.busy_token)


def mint_credentials() -> Credentials:
    return Credentials(_mint("eca_"), _mint("ecj_"), _mint("ecb_"))


def check_join_token(run: Run | None, token: SecretStr) -> None:
    """Raise Unauthenticated unless it is the join token of this run."""
    _check(token, run.join_token_sha256 if run else None)


def check_busy_token(run: Run | None, token: SecretStr) -> None:
    """Raise Unauthenticated unless it is the busy token of this run."""
    _check(token, run.busy_token_sha256 if run else None)


def _mint(prefix: str) -> SecretStr:
    return SecretStr(prefix + secrets.token_urlsafe(32))


def _sha256(token: SecretStr) -> str:
    return hashlib.sha256(token.get_secret_value().encode()).hexdigest()


def _check(token: SecretStr, sha256: str | None) -> None:
    # Compared also when there is nothing to compare with, so that the time does not tell whether there is.
    if not hmac.compare_digest(_sha256(token), sha256 or "") or sha256 is None:
        raise Unauthenticated(
            "cannot accept this token: it is not the one of the container's present run", code="invalid_token"
        )
