"""The store as one object: opened once by each control plane, closed at its end; each noun is an attribute."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from types import TracebackType

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from elizacloud.cipher import Cipher
from elizacloud.errors import Misconfigured
from elizacloud.model import utc_now
from elizacloud.store.agents import Agents
from elizacloud.store.bell import Bell
from elizacloud.store.database import Database
from elizacloud.store.events import Events
from elizacloud.store.hints import Hints
from elizacloud.store.idempotency import Idempotency
from elizacloud.store.installation import Installation
from elizacloud.store.leases import Leases
from elizacloud.store.opening import prepare
from elizacloud.store.owners import Owners
from elizacloud.store.places import Places
from elizacloud.store.pruning import Pruning
from elizacloud.store.sessions import Sessions
from elizacloud.store.signing_keys import SigningKeys
from elizacloud.store.tickets import Tickets
from elizacloud.store.tokens import Tokens


def sqlite_url(file: Path) -> str:
    """The URL of a store in that file; right for every character that a path may have."""
    return URL.create("sqlite", database=str(file)).render_as_string()


class Store:
    """Everything that is kept. Its calls raise StoreUnavailable when the database does not do its work."""

    def __init__(self, database: Database, cipher: Cipher, clock: Callable[[], datetime]) -> None:
        bell = Bell()
        self.agents = Agents(database, bell, cipher, clock)
        self.events = Events(database, bell)
        self.tokens = Tokens(database, clock)
        self.tickets = Tickets(database, clock)
        self.signing_keys = SigningKeys(database, cipher, clock)
        self.idempotency = Idempotency(database, cipher, clock)
        self.owners = Owners(database, clock)
        self.places = Places(database)
        self.sessions = Sessions(database, clock)
        self.installation = Installation(database, cipher, clock)
        self.pruning = Pruning(database, clock)
        self.leases = Leases(database)
        self.hints = Hints(database, cipher)
        self._database = database
        self._bell = bell
        self._listener: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str, cipher: Cipher, *, clock: Callable[[], datetime] = utc_now) -> Store:
        """Check the database, migrate it, and open it.

        `url` is sqlite:///file or postgresql://user:password@host/name. Raises Misconfigured, with nothing changed, when
        it is damaged, was written by a newer version, with another secret key or by something else, or lies on a
        network filesystem; StoreUnavailable when the database does not answer.
        """
        parsed = _parsed(url)
        await asyncio.to_thread(prepare, parsed)
        store = cls(Database(parsed), cipher, clock)
        try:
            await store.installation.check_key()
        except BaseException:
            await store.close()
            raise
        if not store._database.is_sqlite:
            from elizacloud.store.listen import listen  # psycopg is an optional dependency

            store._listener = asyncio.create_task(
                listen(parsed, store._bell, store.hints), name="store: listen for events"
            )
        return store

    @property
    def is_shared(self) -> bool:
        """Whether other control planes may work on it at the same time."""
        return not self._database.is_sqlite

    async def close(self) -> None:
        """Let the connections go. Whoever waits in `events.subscribe` has to be cancelled before."""
        if self._listener is not None:
            self._listener.cancel()
            await asyncio.wait([self._listener])
        await self._database.close()

    async def ping(self) -> None:
        """One good read; raises StoreUnavailable."""
        async with self._database.read() as connection:
            await connection.execute(sa.select(sa.literal(1)))

    async def __aenter__(self) -> Store:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _parsed(url: str) -> URL:
    try:
        parsed = make_url(url.replace("postgres://", "postgresql://", 1) if url.startswith("postgres://") else url)
        backend = parsed.get_backend_name()
    except (sa.exc.ArgumentError, ValueError):
        backend = ""
    if backend not in ("sqlite", "postgresql") or (backend == "sqlite" and not parsed.database):
        # The text itself stays out of the message: it may hold a password.
        raise Misconfigured("cannot open the store: database_url is not postgresql://user:password@host/name")
    return parsed
