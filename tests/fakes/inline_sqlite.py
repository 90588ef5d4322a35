"""SQLite without its thread, for tests in virtual time: a loop that skips waits would not wait for a thread either."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiosqlite.core
import pytest


class _Inline:
    """Stands for the queue to aiosqlite's thread: what is put in is done at once, in the caller's thread."""

    def put_nowait(self, item: tuple[asyncio.Future[Any] | None, Callable[[], Any]]) -> None:
        future, function = item
        try:
            result = function()
        except BaseException as error:
            if future is None:
                raise
            future.set_exception(error)
        else:
            if future is not None:
                future.set_result(result)


class _NoThread:
    def __init__(self, **_: Any) -> None:
        pass

    def start(self) -> None:
        pass


def use_inline_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aiosqlite.core, "SimpleQueue", _Inline)
    monkeypatch.setattr(aiosqlite.core, "Thread", lambda **arguments: _NoThread(**arguments))
