"""One look at something dear for all who want to look at about the same time, so that a crowd costs what one costs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from elizacloud.errors import Error

T = TypeVar("T")


class SharedLook(Generic[T]):
    """Calls `look` at most once at a time and at most once in `gap_seconds`. An error is shared like an answer."""

    def __init__(self, look: Callable[[], Awaitable[T]], *, gap_seconds: float) -> None:
        self._look = look
        self._gap_seconds = gap_seconds
        self._turn = asyncio.Lock()
        self._began: float | None = None
        self._answer: T | Error | None = None

    async def get(self, *, since: float) -> T:
        """The answer of a look that began at `since` (time of the loop) or later; raises what the look raised."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            if self._began is not None and self._began < since:
                await asyncio.sleep(max(0.0, self._began + self._gap_seconds - loop.time()))
            if self._began is None or self._began < since or self._answer is None:
                began, self._answer = loop.time(), None
                try:
                    self._answer = await self._look()
                except Error as error:
                    self._answer = error
                self._began = began
        if isinstance(self._answer, Error):
            raise self._answer
        return self._answer
