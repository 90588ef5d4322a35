"""Who calls the API: the holder of an API token, or of a trusted issuer's JWT, which makes its owner's caller."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from elizacloud.auth.access import principal_of
from elizacloud.auth.jwt import Claims, UnknownKey, Verifier, looks_like_jwt
from elizacloud.auth.signing_keys import SigningKeys
from elizacloud.auth.tokens import parse_bearer, token_sha256
from elizacloud.auth.trusted import TrustedIssuers
from elizacloud.errors import Forbidden
from elizacloud.model import Principal, Scope
from elizacloud.store import Store


class Callers:
    def __init__(self, store: Store, keys: SigningKeys, trusted: TrustedIssuers, now: Callable[[], datetime]) -> None:
        self._store = store
        self._trusted = trusted
        self._now = now
        self._verifier = Verifier(lambda: {**trusted.known, keys.issuer: keys.known}, now)

    async def authenticate(self, authorization: str | None) -> Principal:
        """Who sent this Authorization header. Raises Unauthenticated, and Forbidden for a JWT of our own."""
        value = parse_bearer(authorization).get_secret_value()
        if not looks_like_jwt(value):
            return principal_of(await self._store.tokens.by_sha256(token_sha256(value)), self._now())
        claims = await self._verified(value)
        if claims.own:
            raise Forbidden(
                "cannot manage agents with a token that only reaches them: use an owner's token", code="scope"
            )
        return Principal(
            claims.token_id,
            claims.owner_id,
            frozenset({Scope.OWNER}),
            expires_at=claims.expires_at,
            issuer=claims.issuer,
        )

    async def _verified(self, token: str) -> Claims:
        try:
            return self._verifier.verify(token)
        except UnknownKey as error:
            if not await self._trusted.seek(error.issuer):
                raise
        return self._verifier.verify(token)
