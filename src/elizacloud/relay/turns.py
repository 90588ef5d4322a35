"""Who is served next when more has come than a moment allows: owners take turns, and each request waits for few others.

The event loop serves everything that has come before it looks again, so an owner with many connections would be served
with all of them before anybody else is. So after some work the loop looks first, and what comes then waits in a line for
each owner. Whoever has much to do waits for itself; as long as little comes, nobody waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

BULK_BYTES = 32 << 10
"""So many bytes at once are work of their own, as much as half a request."""
_WORK = 4.0
"""Requests, until the loop looks again: with fewer its looking costs more than it brings."""


class Turns:
    """One a worker."""

    def __init__(self, call_soon: Callable[[Callable[[], None]], object] | None = None) -> None:
        self._call_soon = call_soon or asyncio.get_running_loop().call_soon
        self._left = _WORK
        """Until the loop looks again; it has been asked to when nothing is left."""
        self._lines: dict[str, deque[tuple[float, Callable[[], None]]]] = {}
        """What waits, by owner, and how much work it is; the first owner is next."""

    def begin(self, owner: str, start: Callable[[], None]) -> None:
        """Start a request, now or when it is its owner's turn."""
        if self._left > 0:
            self._spend(1.0)
            start()
        else:
            self._wait(owner, 1.0, start)

    def moved(self, owner: str, size: int, rest: Callable[[], None], go_on: Callable[[], None]) -> None:
        """So many bytes passed, BULK_BYTES or more. Their source may have to `rest` until it is its owner's turn."""
        work = size / (2 * BULK_BYTES)
        if self._left > 0:
            self._spend(work)
        else:
            rest()
            self._wait(owner, work, go_on)

    def _wait(self, owner: str, work: float, then: Callable[[], None]) -> None:
        line = self._lines.get(owner)
        if line is None:
            line = self._lines[owner] = deque()
        line.append((work, then))

    def _spend(self, work: float) -> None:
        self._left -= work
        if self._left <= 0:
            self._call_soon(self._looked)

    def _looked(self) -> None:
        """The loop has seen what came: the next ones, one of each owner."""
        self._left = _WORK
        while self._lines and self._left > 0:
            owner, line = next(iter(self._lines.items()))
            del self._lines[owner]
            work, then = line.popleft()
            if line:
                self._lines[owner] = line
            self._spend(work)
            then()
