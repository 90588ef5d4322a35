"""How often somebody may have something done that costs us: so many at once, and then as they come back with time."""

from __future__ import annotations

import asyncio

MINUTE_SECONDS, HOUR_SECONDS = 60.0, 3600.0
_ROUNDING = 1e-9
"""Else whoever waits for as long as it was told would be told to wait for a moment that no clock can tell."""


class Budget:
    """Each one's own, by id, and each control plane's own: `most` within that time, None or 0 is no limit."""

    def __init__(self, most: int | None, *, within_seconds: float) -> None:
        self._most = most or 0
        self._within_seconds = within_seconds
        self._used: dict[str, tuple[float, float]] = {}
        """How much of it was used, at a time of the loop."""

    def wait_seconds(self, id_: str) -> float:
        """How long until there is something left to spend; 0 when there is."""
        over = self._now_used(id_) + 1 - self._most
        return over * self._within_seconds / self._most if self._most and over > _ROUNDING else 0.0

    def spend(self, id_: str) -> None:
        if not self._most:
            return
        self._used[id_] = (self._now_used(id_) + 1, _now())
        for other in [other for other in self._used if not self._now_used(other)]:
            del self._used[other]

    def _now_used(self, id_: str) -> float:
        used, at = self._used.get(id_, (0.0, 0.0))
        return max(0.0, used - (_now() - at) * self._most / self._within_seconds)


def _now() -> float:
    return asyncio.get_running_loop().time()
