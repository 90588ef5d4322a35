"""When each agent was last used, as far as this control plane knows: in memory, since relays tell it every second.

Nothing is known of the time before this control plane drove the agent, so that counts as a use: a restart makes agents rest
later, never sooner.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime


class Uses:
    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._last: dict[str, datetime] = {}

    def note(self, agent_id: str) -> None:
        """It is used now."""
        self._last[agent_id] = self._now()

    def last(self, agent_id: str) -> datetime:
        """Never in the future, so that a clock that was put back delays nothing for long."""
        now = self._now()
        last = self._last.get(agent_id, now)
        if last >= now:
            self._last[agent_id] = last = now
        return last

    def forget(self, agent_id: str) -> None:
        self._last.pop(agent_id, None)
