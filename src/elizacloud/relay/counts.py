"""How many of something are open now, by whom they are counted for: nothing is kept for those who have none."""

from __future__ import annotations


class Counts(dict[str, int]):
    __slots__ = ()

    def enter(self, key: str) -> int:
        """How many there are with this one."""
        now = self[key] = self.get(key, 0) + 1
        return now

    def leave(self, key: str) -> int:
        """How many are left."""
        left = self[key] - 1
        if left:
            self[key] = left
        else:
            del self[key]
        return left
