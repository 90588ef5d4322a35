"""Wakes those who wait for new events. Only ever a hint: whoever wakes reads the table, and polls now and then anyway."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from weakref import WeakValueDictionary


class Waiter:
    """Taken before the table is read, so that a ring between reading and waiting is not lost."""

    def __init__(self, rung: asyncio.Event) -> None:
        self._rung = rung

    async def wait(self, within_seconds: float) -> None:
        """Return when the bell has rung since the waiter was taken, or when the time is up."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_seconds):
                await self._rung.wait()


class Bell:
    """One bell an agent and one for all."""

    CHANNEL = "elizacloud_events"

    def __init__(self) -> None:
        # Weak: the bell of an agent that nobody waits for any more is forgotten.
        self._rung: WeakValueDictionary[str | None, asyncio.Event] = WeakValueDictionary()

    def waiter(self, agent_id: str | None) -> Waiter:
        rung = self._rung.get(agent_id)
        if rung is None:
            rung = self._rung[agent_id] = asyncio.Event()
        return Waiter(rung)

    def ring(self, agent_id: str) -> None:
        for key in (agent_id, None):
            if rung := self._rung.pop(key, None):
                rung.set()

    def ring_all(self) -> None:
        for key in list(self._rung):
            if rung := self._rung.pop(key, None):
                rung.set()
