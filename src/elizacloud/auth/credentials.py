"""The part of a control plane that knows who people are, put together: give it a store and the relays, and `run` it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from elizacloud.auth.callers import Callers
from elizacloud.auth.issuing import Tokens, known_token
from elizacloud.auth.jwts import Jwts
from elizacloud.auth.login import Logins
from elizacloud.auth.pruning import Pruner
from elizacloud.auth.signing_keys import SigningKeys
from elizacloud.auth.tickets import Tickets
from elizacloud.auth.trusted import Fetch, TrustedIssuers
from elizacloud.model import utc_now
from elizacloud.settings import Settings
from elizacloud.store import Store
from elizacloud.upstreams import KnownToken, Relays


def issuer_name(public_url: str | None, installation_id: str) -> str:
    """Our `iss`: the public URL, or a name that no other installation has (RFC 8141 has `urn:` for that)."""
    return public_url or f"urn:elizacloud:{installation_id}"


class Credentials:
    """`issuer` is our name in JWTs, `kept` a file for trusted issuers' keys; `leads` is for Pruner.

    Raises Misconfigured when a trusted issuer claims our name.
    """

    def __init__(
        self,
        store: Store,
        relays: Relays,
        settings: Settings,
        *,
        issuer: str,
        now: Callable[[], datetime] = utc_now,
        fetch: Fetch | None = None,
        kept: Path | None = None,
        leads: Callable[[], bool] = lambda: True,
    ) -> None:
        self._store = store
        self.trusted = TrustedIssuers(settings.trusted_issuers, relays, ours=issuer, fetch=fetch, kept=kept)
        self.keys = SigningKeys(store, relays, now, issuer=issuer, key_seconds=settings.signing_key_seconds)
        self.callers = Callers(store, self.keys, self.trusted, now)
        self.tokens = Tokens(store, relays, now)
        self.jwts = Jwts(self.keys, now)
        self.logins = Logins(store, self.tokens, now)
        self.tickets = Tickets(
            store,
            relays,
            now,
            ticket_seconds=settings.ticket_seconds,
            session_seconds=settings.session_seconds,
        )
        self.pruner = Pruner(store, relays, now, leads)

    async def live_tokens(self) -> list[KnownToken]:
        """What relays have to know at the start."""
        return [known_token(token) for token in await self._store.tokens.list_live()]

    async def prepare(self) -> None:
        """Have keys, and those of trusted issuers that answer: before the first relay is let in. Raises StoreUnavailable."""
        await self.keys.refresh()
        self.trusted.recall()
        await self.trusted.refresh()

    async def run(self) -> None:
        """Keep keys and tables fresh until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.keys.run(), name="signing keys")
            tasks.create_task(self.trusted.run(), name="keys of trusted issuers")
            tasks.create_task(self.pruner.run(), name="forget what has expired")
