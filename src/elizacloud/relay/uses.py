"""What a worker does for each agent now, and which agents somebody used: what pausing rests on. One a worker.

In memory and next to nothing for each request; the control plane is told once a second. A poll of the health path is no
use, and an open stream is one only when something that matters passes on it: a silent one may outlive a pause.
"""

from __future__ import annotations

from collections.abc import Callable

from elizacloud.relay.counts import Counts
from elizacloud.relay.matters import answers_for, event_matters, message_matters
from elizacloud.upstreams import UpstreamTable

POLLS_KEPT_SECONDS = 3600.0
"""Polls that are further apart are each the first one."""


class Uses:
    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._in_flight = Counts()
        self._polls = Counts()
        """Of those in flight: how many are polls."""
        self._streams = Counts()
        """Likewise: how many are open streams that may wait while the agent is paused."""
        self._polled_at: dict[str, float] = {}
        self.used: set[str] = set()
        """Agents for which something happened that matters since the last report."""
        self.watched: Callable[[], None] | None = None
        """Called when less is in flight, while somebody waits for that."""

    def began(self, agent_id: str) -> None:
        self._in_flight.enter(agent_id)

    def ended(self, agent_id: str) -> None:
        self._in_flight.leave(agent_id)
        if self.watched is not None:
            self.watched()

    def poll_began(self, agent_id: str) -> float | None:
        """How long after the one before, if there was one."""
        self._polls.enter(agent_id)
        now, before = self._now(), self._polled_at.get(agent_id)
        self._polled_at[agent_id] = now
        return None if before is None else now - before

    def poll_ended(self, agent_id: str) -> None:
        self._polls.leave(agent_id)

    def stream_opened(self, agent_id: str) -> None:
        self.used.add(agent_id)
        self._streams.enter(agent_id)

    def stream_ended(self, agent_id: str) -> None:
        self._streams.leave(agent_id)

    def idle(self, agent_id: str) -> bool:
        """Nothing is in flight but streams on which nothing that matters passed of late."""
        streams = self._streams.get(agent_id, 0)
        return self._in_flight.get(agent_id, 0) == streams and (not streams or agent_id not in self.used)

    def take(self) -> tuple[str, ...]:
        """Agents that were used since the last call, and those for which work is in flight now."""
        used, self.used = self.used, set()
        for agent_id, count in self._in_flight.items():
            if count > self._polls.get(agent_id, 0) + self._streams.get(agent_id, 0):
                used.add(agent_id)
        long_ago = self._now() - POLLS_KEPT_SECONDS
        for agent_id in [agent_id for agent_id, at in self._polled_at.items() if at < long_ago]:
            del self._polled_at[agent_id]
        if self.watched is not None:
            self.watched()
        return tuple(used)


class OpenStream:
    """An event stream that was asked for by GET, or an upgraded connection: it stays open while its agent is paused."""

    __slots__ = ("_agent_id", "_matters", "_table", "_uses", "_wake")

    def __init__(
        self, agent_id: str, uses: Uses, table: UpstreamTable, wake: Callable[[str], None], *, upgraded: bool
    ) -> None:
        self._agent_id = agent_id
        self._uses = uses
        self._table = table
        self._wake = wake
        self._matters = message_matters if upgraded else event_matters
        uses.stream_opened(agent_id)

    def down(self, data: bytes) -> None:
        """The agent sent this."""
        used = self._uses.used
        if self._agent_id not in used and self._matters(data):
            used.add(self._agent_id)

    def up(self, data: bytes) -> bytes | None:
        """The client sent this; None when it has to go to the agent, and what is answered in its place when it sleeps on."""
        used = self._uses.used
        if self._agent_id in self._table.upstreams:
            if self._agent_id not in used and self._matters(data):
                used.add(self._agent_id)
            return None
        if not self._matters(data):
            return answers_for(data)
        used.add(self._agent_id)
        self._wake(self._agent_id)
        return None
