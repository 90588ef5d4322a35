"""What control planes tell each other at once, over PostgreSQL's NOTIFY: only ever hints, which may be lost.

Whoever needs to know for certain reads the tables now and then as well. On SQLite there is nobody to tell.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
import structlog

from elizacloud.store.database import Database

CHANNEL = "elizacloud_hints"
_MOST_BYTES = 7900
"""PostgreSQL takes fewer than 8000 bytes (its documentation, NOTIFY)."""

Hint = Mapping[str, Any]

log = structlog.get_logger()


class Hints:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._hear: list[Callable[[Hint], None]] = []

    def listen(self, hear: Callable[[Hint], None]) -> None:
        """Call it, on the loop, with every hint that comes, our own ones too. It must not block nor raise."""
        self._hear.append(hear)

    async def send(self, hint: Hint) -> None:
        """To all control planes on this database. Raises StoreUnavailable."""
        if self._database.is_sqlite:
            return
        text = json.dumps(hint, separators=(",", ":"))
        assert len(text.encode()) <= _MOST_BYTES, "a hint names things and does not hold them"
        async with self._database.write() as connection:
            await connection.execute(sa.select(sa.func.pg_notify(CHANNEL, text)))

    def heard(self, text: str) -> None:
        try:
            hint = json.loads(text)
        except ValueError:
            log.warning("a hint is not understood")
            return
        for hear in self._hear:
            hear(hint)
