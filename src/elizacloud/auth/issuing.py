"""API tokens: made, looked up, listed and revoked, and told to the relays, which check them without asking."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import SecretStr

from elizacloud.auth.tokens import mint
from elizacloud.errors import Forbidden, Invalid, NotFound
from elizacloud.model import ApiToken, Principal, Scope, TokenKind
from elizacloud.store import Store
from elizacloud.upstreams import KnownToken, Relays

NAME_MAX = 100


@dataclass(frozen=True, slots=True)
class Issued:
    """A new token, the only time that its value is known."""

    token: ApiToken
    value: SecretStr


class Tokens:
    def __init__(self, store: Store, relays: Relays, now: Callable[[], datetime]) -> None:
        self._store = store
        self._relays = relays
        self._now = now

    async def issue(
        self,
        owner_id: str,
        name: str,
        *,
        by: Principal | None,
        scopes: frozenset[Scope] = frozenset({Scope.OWNER}),
        agent_id: str | None = None,
        expires_in_seconds: float | None = None,
    ) -> Issued:
        """A new token. `by` is who asks (None: ourselves); nobody can give away more than they have.

        Raises Invalid, Forbidden, and NotFound when it is bound to an agent that does not exist.
        """
        if by is not None and Scope.SERVICE in scopes and Scope.SERVICE not in by.scopes:
            raise Forbidden("cannot create a service token: only a service token can", code="scope")
        if agent_id is not None and scopes != {Scope.RELAY}:
            raise Invalid("cannot bind this token to one agent: its only scope must be relay", code="invalid_scopes")
        if not scopes:
            raise Invalid("cannot create a token without scopes: give at least one", code="invalid_scopes")
        now, minted = self._now(), mint()
        token = ApiToken(
            id=minted.id,
            owner_id=owner_id,
            name=checked_token_name(name),
            scopes=scopes,
            agent_id=agent_id,
            sha256=minted.sha256,
            created_at=now,
            expires_at=None if expires_in_seconds is None else now + timedelta(seconds=expires_in_seconds),
        )
        await self._store.tokens.create(token)
        self._relays.add_token(known_token(token))
        return Issued(token, minted.value)

    async def list(self, owner_id: str) -> Sequence[ApiToken]:
        """The owner's tokens that are not revoked, newest first."""
        return await self._store.tokens.list(owner_id)

    async def revoke(self, token_id: str, owner_id: str) -> ApiToken:
        """From now on nobody is let in with it; NotFound when the owner has none of that id."""
        try:
            token = await self._store.tokens.revoke(token_id, owner_id)
        except NotFound as error:
            raise NotFound(f"cannot find a token {token_id[:40]}: check its id", code="token_not_found") from error
        self._relays.revoke_token(token.id)
        return token

    async def end_session(self, sha256: str) -> None:
        """A browser logged out: revoke its session, if there is one with this hash."""
        token = await self._store.tokens.by_sha256(sha256)
        if token is not None and token.kind is TokenKind.SESSION and token.revoked_at is None:
            await self.revoke(token.id, token.owner_id)


def known_token(token: ApiToken) -> KnownToken:
    """What a relay has to know of it."""
    return KnownToken(
        token.id,
        token.sha256,
        token.owner_id,
        token.scopes,
        token.agent_id,
        token.expires_at,
        token.kind,
        token.parent_id,
    )


def checked_token_name(name: str) -> str:
    """Return it; raise Invalid when it is empty, too long, has spaces around it or control characters."""
    hidden = any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} for character in name)
    if not name or len(name) > NAME_MAX or name != name.strip() or hidden:
        raise Invalid(
            f"cannot use this name for a token: give 1 to {NAME_MAX} characters without control characters and "
            "without spaces around them",
            code="invalid_name",
        )
    return name
