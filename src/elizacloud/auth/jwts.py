"""JWTs of our own: short-lived, for one agent or all of an owner's, good at the relay and nowhere else."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import SecretStr

from elizacloud.auth.jwt import OUR_LIFETIME_SECONDS, audience_of
from elizacloud.auth.signing_keys import SigningKeys
from elizacloud.errors import Invalid
from elizacloud.model import Principal

DEFAULT_SECONDS = 900


@dataclass(frozen=True, slots=True)
class IssuedJwt:
    """Nothing of it is stored. It ends with its time, and with the API token that asked for it."""

    id: str
    value: SecretStr
    owner_id: str
    agent_id: str | None
    created_at: datetime
    expires_at: datetime


class Jwts:
    def __init__(self, keys: SigningKeys, now: Callable[[], datetime]) -> None:
        self._keys = keys
        self._now = now

    def issue(
        self,
        owner_id: str,
        *,
        by: Principal,
        agent_id: str | None = None,
        expires_in_seconds: float = DEFAULT_SECONDS,
    ) -> IssuedJwt:
        """A JWT that reaches this agent, or all of the owner's; not valid for longer than the caller's own credential.

        Raises Invalid for one of over an hour, and StoreUnavailable.
        """
        if not 0 < expires_in_seconds <= OUR_LIFETIME_SECONDS:
            raise Invalid(
                f"cannot issue a JWT for {expires_in_seconds:g} s: {OUR_LIFETIME_SECONDS} is the most; ask for an API token",
                code="invalid_lifetime",
            )
        now, token_id = self._now(), secrets.token_urlsafe(12)
        end = now + timedelta(seconds=expires_in_seconds)
        # Whole seconds, so that every reader sees the same times.
        expires_at = min(end, by.expires_at or end).replace(microsecond=0)
        claims: dict[str, str | int] = {
            "sub": owner_id,
            "aud": audience_of(agent_id),
            "iat": int(now.timestamp()),
            "exp": int(expires_at.timestamp()),
            "jti": token_id,
        }
        if by.parent_id is not None:
            claims["tid"] = by.parent_id
        return IssuedJwt(token_id, SecretStr(self._keys.sign(claims)), owner_id, agent_id, now, expires_at)
