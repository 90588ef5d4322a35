"""What control planes tell each other at once, over PostgreSQL's NOTIFY: only ever hints, which may be lost.

Whoever needs to know for certain reads the tables now and then as well, or asks again. On SQLite there is nobody to tell.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa
import structlog

from elizacloud.cipher import Cipher
from elizacloud.errors import Misconfigured
from elizacloud.store.database import Database

CHANNEL = "elizacloud_hints"
_MOST_BYTES = 7900
"""PostgreSQL takes fewer than 8000 bytes (its documentation, NOTIFY)."""

Hint = Mapping[str, Any]

log = structlog.get_logger()


class Hints:
    def __init__(self, database: Database, cipher: Cipher) -> None:
        self._database = database
        self._cipher = cipher
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

    def seal(self, plain: bytes, *, bound_to: str) -> str:
        """For what everybody who can read the database may hear, and only a control plane may read."""
        return base64.b64encode(self._cipher.seal(plain, bound_to=bound_to)).decode()

    def open(self, sealed: str, *, bound_to: str) -> bytes:
        """Raises Misconfigured when it was sealed with another secret key, or for something else."""
        try:
            return self._cipher.open(base64.b64decode(sealed, validate=True), bound_to=bound_to)
        except binascii.Error as error:
            raise Misconfigured(f"cannot decrypt {bound_to}: it is not base64") from error

    def heard(self, text: str) -> None:
        """What came over the channel, on which everybody who may use the database can say anything."""
        try:
            hint = json.loads(text)
            if not isinstance(hint, dict):
                raise TypeError("a hint is an object")
            for hear in self._hear:
                hear(hint)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("a hint is not understood", error=type(error).__name__)
