"""Asks the control plane to wake agents: each once, for all that this worker holds for it, until it is awake. One a worker."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from elizacloud.errors import TooMany
from elizacloud.upstreams import UpstreamTable, WakeRefusal

_LONGEST_REFUSAL_SECONDS = 30.0
"""How long a refusal is taken for granted: room may come at any time."""


class Waker(Protocol):
    def tell_wake(self, agent_id: str) -> None: ...


class Wakes:
    def __init__(self, waker: Waker, now: Callable[[], float]) -> None:
        self._waker = waker
        self._now = now
        self._asked: set[str] = set()
        self._refused: dict[str, tuple[float, WakeRefusal]] = {}

    def ask(self, agent_id: str) -> None:
        """Raises TooMany when that was refused a moment ago."""
        if agent_id in self._refused:
            until, refusal = self._refused[agent_id]
            if self._now() < until:
                raise TooMany(refusal.reason, code=refusal.code, retry_after_seconds=refusal.retry_after_seconds)
            del self._refused[agent_id]
        if agent_id not in self._asked:
            self._asked.add(agent_id)
            self._waker.tell_wake(agent_id)

    def refused(self, refusal: WakeRefusal) -> None:
        seconds = min(refusal.retry_after_seconds, _LONGEST_REFUSAL_SECONDS)
        self._refused[refusal.agent_id] = (self._now() + seconds, refusal)
        self._asked.discard(refusal.agent_id)

    def forget(self, agent_id: str) -> None:
        """Nobody waits for it any more: whoever comes next asks anew."""
        self._asked.discard(agent_id)

    def ask_again(self) -> None:
        """What was asked for may not have been heard."""
        self._asked.clear()

    def settle(self, table: UpstreamTable) -> None:
        """Those that are awake are asked for again once they sleep."""
        if self._asked:
            self._asked -= table.upstreams.keys()
