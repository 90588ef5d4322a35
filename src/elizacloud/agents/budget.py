"""How often somebody may have something done that costs us: a minute's worth at once, then as it comes back with time."""

from __future__ import annotations

import asyncio


class Budget:
    """Each one's own, by id, and each control plane's own; 0 in a minute is no limit."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._used: dict[str, tuple[float, float]] = {}
        """How much of it was used, at a time of the loop."""

    def wait_seconds(self, id_: str) -> float:
        """How long until there is something left to spend; 0 when there is."""
        over = self._now_used(id_) + 1 - self._per_minute
        return over * 60 / self._per_minute if self._per_minute and over > 0 else 0.0

    def spend(self, id_: str) -> None:
        if not self._per_minute:
            return
        self._used[id_] = (self._now_used(id_) + 1, _now())
        for other in [other for other in self._used if not self._now_used(other)]:
            del self._used[other]

    def _now_used(self, id_: str) -> float:
        used, at = self._used.get(id_, (0.0, 0.0))
        return max(0.0, used - (_now() - at) * self._per_minute / 60)


def _now() -> float:
    return asyncio.get_running_loop().time()
