"""Asks the control plane to wake agents, for all that this worker holds for them, until they are awake. One a worker.

Each is asked for once; again by who comes two seconds later and finds it asleep still, since a wake may fail.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from elizacloud.errors import TooMany, Unavailable
from elizacloud.upstreams import UpstreamTable, WakeRefusal

ASLEEP = "agent_asleep"
"""The code of a refusal that is for polls only."""
_LONGEST_REFUSAL_SECONDS = 30.0
"""How long a refusal is taken for granted: room may come at any time."""
_AGAIN_SECONDS = 2.0


class Waker(Protocol):
    def tell_wake(self, agent_id: str, poll_gap_seconds: float | None = None) -> None: ...


class Wakes:
    def __init__(self, waker: Waker, now: Callable[[], float]) -> None:
        self._waker = waker
        self._now = now
        self._asked: dict[str, tuple[bool, float]] = {}
        """By agent: whether for a request, and not for polls alone; and when."""
        self._refused: dict[tuple[str, bool], tuple[float, WakeRefusal]] = {}
        """By agent, and whether for requests."""

    def ask(self, agent_id: str, poll_gap_seconds: float | None = None) -> None:
        """For a request, or for a poll so long after the one before. Raises TooMany, or for a poll Unavailable
        `agent_asleep`, when that was refused a moment ago."""
        is_request = poll_gap_seconds is None
        self._check(agent_id, True)
        if not is_request:
            self._check(agent_id, False)
        asked = self._asked.get(agent_id)
        if asked is not None:
            for_request, at = asked
            if for_request > is_request or (for_request == is_request and self._now() < at + _AGAIN_SECONDS):
                return
        self._asked[agent_id] = is_request, self._now()
        self._waker.tell_wake(agent_id, poll_gap_seconds)

    def refused(self, refusal: WakeRefusal) -> None:
        for_requests = refusal.code != ASLEEP
        asked = self._asked.get(refusal.agent_id)
        if not for_requests and asked is not None and asked[0]:
            return  # a request was asked for since
        seconds = min(refusal.retry_after_seconds, _LONGEST_REFUSAL_SECONDS)
        self._refused[refusal.agent_id, for_requests] = (self._now() + seconds, refusal)
        self._asked.pop(refusal.agent_id, None)

    def forget(self, agent_id: str) -> None:
        """Nobody waits for it any more: whoever comes next asks anew."""
        self._asked.pop(agent_id, None)

    def ask_again(self) -> None:
        """What was asked for may not have been heard."""
        self._asked.clear()

    def settle(self, table: UpstreamTable) -> None:
        """Those that are awake are asked for again once they sleep."""
        for agent_id in self._asked.keys() & table.upstreams.keys():
            del self._asked[agent_id]

    def _check(self, agent_id: str, is_request: bool) -> None:
        key = agent_id, is_request
        if key not in self._refused:
            return
        until, refusal = self._refused[key]
        if self._now() >= until:
            del self._refused[key]
            return
        error = TooMany if is_request else Unavailable
        raise error(refusal.reason, code=refusal.code, retry_after_seconds=refusal.retry_after_seconds)
