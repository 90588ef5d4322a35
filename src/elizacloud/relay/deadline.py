"""A deadline that is set and cleared for every request, at almost no cost.

Arming a timer of the event loop for each request would be a tenth of the relay's own time, so one timer is left
running: when it fires, it looks whether the deadline has moved and goes to sleep again until then.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable


class Deadline:
    __slots__ = ("_at", "_loop", "_now", "_passed", "_rings_at", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        self._loop = loop
        self._now = loop.time
        self._passed = passed
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = math.inf
        """When the timer fires."""

    def set(self, seconds: float) -> None:
        """Call `passed` after this time, unless it is set again or cleared before."""
        self._at = at = self._now() + seconds
        if at < self._rings_at:
            if self._timer is not None:
                self._timer.cancel()
            self._arm(at)

    def clear(self) -> None:
        self._at = None

    def stop(self) -> None:
        """Let go of the event loop; the deadline is not used again."""
        self._at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _arm(self, at: float) -> None:
        self._timer = self._loop.call_at(at, self._fire)
        self._rings_at = at

    def _fire(self) -> None:
        self._timer = None
        self._rings_at = math.inf
        if self._at is None:
            return
        if self._at <= self._now():
            self._at = None
            self._passed()
        else:
            self._arm(self._at)
