"""A store for tests: the real one, on SQLite in a temporary directory, opened and closed in a few milliseconds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import cache
from pathlib import Path

from elizacloud.model import Cell, Host, utc_now
from elizacloud.store import Cipher, Store, new_secret_key, sqlite_url

CELL = Cell("cell-1", "first cell")
HOST = Host("host-1", "first host", "process")


@cache
def _cipher() -> Cipher:
    return Cipher(new_secret_key())


@asynccontextmanager
async def open_memory_store(*, clock: Callable[[], datetime] = utc_now) -> AsyncIterator[Store]:
    """An empty store that knows CELL and HOST; its file is gone at the end."""
    directory = Path(tempfile.mkdtemp(prefix="ec-store-"))
    try:
        async with await Store.open(sqlite_url(directory / "store.db"), _cipher(), clock=clock) as store:
            await store.places.ensure_cell(CELL)
            await store.places.ensure_host(HOST)
            yield store
    finally:
        shutil.rmtree(directory, ignore_errors=True)
