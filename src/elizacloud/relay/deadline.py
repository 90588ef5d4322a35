"""A deadline that is set and cleared for every request, at almost no cost.

Arming a timer of the event loop for each request would be a tenth of the relay's own time, so one timer is left
running: when it fires, it looks whether the deadline has moved and goes to sleep again until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Deadline:
    __slots__ = ("_at", "_loop", "_passed", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop, passed: Callable[[], None]) -> None:
        self._loop = loop
        self._passed = passed
        self._at: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    def set(self, seconds: float) -> None:
        """Call `passed` after this time, unless it is set again or cleared before."""
        self._at = at = self._loop.time() + seconds
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._fire)

    def clear(self) -> None:
        self._at = None

    def stop(self) -> None:
        """Let go of the event loop; the deadline is not used again."""
        self._at = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        if self._at is None:
            return
        if self._at <= self._loop.time():
            self._at = None
            self._passed()
        else:
            self._timer = self._loop.call_at(self._at, self._fire)
