"""Hints that an agent's own machine gives, as often as it likes: by joining and leaving, by reporting its address.

Each costs us a look, and some a call to Headscale. So each agent has a budget of them; what goes beyond is one look later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from elizacloud.agents.budget import HOUR_SECONDS, MINUTE_SECONDS, Budget

HINTS_PER_MINUTE = 30
"""A join gives two or three, all at once."""

log = structlog.get_logger()


class Hints:
    def __init__(self, wake: Callable[[str], None], held: Callable[[], None] = lambda: None) -> None:
        """`held` is called for each hint that has to wait."""
        self._wake = wake
        self._count_held = held
        self._told = Budget(1, within_seconds=HOUR_SECONDS)
        self._budget = Budget(HINTS_PER_MINUTE, within_seconds=MINUTE_SECONDS)
        self._held: set[str] = set()

    def hint(self, agent_id: str) -> None:
        """Look at the agent: now, or as soon as its budget allows."""
        wait_seconds = self._budget.wait_seconds(agent_id)
        if not wait_seconds:
            self._budget.spend(agent_id)
            self._wake(agent_id)
        elif agent_id not in self._held:
            self._held.add(agent_id)
            self._count_held()
            self._tell(agent_id)
            asyncio.get_running_loop().call_later(wait_seconds, self._let_go, agent_id)

    def _tell(self, agent_id: str) -> None:
        """Once an hour is enough for whoever wants to know whose machine it is."""
        if not self._told.wait_seconds(agent_id):
            self._told.spend(agent_id)
            log.warning(
                "its machine joins, leaves or reports without end; it is looked at less often",
                agent=agent_id,
                hints_per_minute=HINTS_PER_MINUTE,
            )

    def _let_go(self, agent_id: str) -> None:
        self._held.discard(agent_id)
        self.hint(agent_id)
