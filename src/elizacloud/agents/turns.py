"""Who goes on next, when only a few may at once: owners take turns, so that nobody's slow agents hold up somebody else's.

An owner of whom nothing goes on is let in at once, also when all the usual places are taken by others who hang.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager


class Turns:
    """At most `at_once` go on together, of one owner `of_owner`; the first of each owner may go on while there are fewer
    than `with_first` in all."""

    def __init__(self, *, at_once: int, of_owner: int, with_first: int) -> None:
        self._at_once = at_once
        self._of_owner = of_owner
        self._with_first = with_first
        self._going: Counter[str] = Counter()
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By owner, the one whose turn is longest ago first."""

    @asynccontextmanager
    async def turn(self, owner_id: str) -> AsyncIterator[None]:
        """Wait for a turn; it lasts as long as the block."""
        await self._begin(owner_id)
        try:
            yield
        finally:
            self._end(owner_id)

    async def _begin(self, owner_id: str) -> None:
        if owner_id not in self._waiting and self._next([owner_id]) is not None:
            self._going[owner_id] += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(owner_id, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._end(owner_id)  # it had come just now
            raise

    def _end(self, owner_id: str) -> None:
        self._going[owner_id] -= 1
        if not self._going[owner_id]:
            del self._going[owner_id]
        while (next_one := self._next(self._waiting)) is not None:
            waiting = self._waiting.pop(next_one)
            turn = waiting.popleft()
            if waiting:
                self._waiting[next_one] = waiting
            if not turn.done():  # nobody waits for one that was cancelled
                self._going[next_one] += 1
                turn.set_result(None)

    def _next(self, owners: Iterable[str]) -> str | None:
        """The first of these owners who may begin; however many there are, few have to be looked at."""
        going = self._going.total()
        if going < self._with_first:
            first = next((one for one in owners if not self._going[one]), None)
            if first is not None:
                return first
        if going >= self._at_once:
            return None
        return next((one for one in owners if self._going[one] < self._of_owner), None)
