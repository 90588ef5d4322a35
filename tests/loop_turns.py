"""How much is done in one turn of the event loop, for tests of what is to leave others theirs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest


@asynccontextmanager
async def calls_by_turn(monkeypatch: pytest.MonkeyPatch, module: object, name: str) -> AsyncIterator[Counter[int]]:
    """By the number of the turn: how often the function of the module was called in it."""
    function, turn, calls = getattr(module, name), 0, Counter[int]()

    def counted(*arguments: Any) -> Any:
        calls[turn] += 1
        return function(*arguments)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(module, name, counted)
    counting = asyncio.create_task(count_turns(), name="turns")
    try:
        yield calls
    finally:
        counting.cancel()
