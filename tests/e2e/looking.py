"""Looking again at what tells nobody: processes, files, another program's answers. What has an event is awaited instead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

WITHIN_SECONDS = 40
LOOK_SECONDS = 0.01


async def a_moment(seconds: float = LOOK_SECONDS) -> None:
    """Time for other programs to run in, between two looks, or between two parts of what a slow client sends."""
    passed = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, passed.set)
    await passed.wait()


async def until(condition: Callable[[], bool], within_seconds: float = WITHIN_SECONDS) -> None:
    async with asyncio.timeout(within_seconds):
        while not condition():
            await a_moment()
