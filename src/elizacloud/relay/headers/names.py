"""What is decided of header names, remembered: the same few come with every message, and anyone may make up others.

So the memory is bounded by bytes, too: a name may be as long as a head, and without a credential.
"""

from __future__ import annotations

from collections.abc import Callable

_LONGEST_BYTES = 64
_MOST = 4096


class NameRule(dict[bytes, bool]):
    """`rule[name]` is what `decide` says of a name in lower case; it must be pure. A look-up costs less than a call."""

    __slots__ = ("_decide",)

    def __init__(self, decide: Callable[[bytes], bool]) -> None:
        super().__init__()
        self._decide = decide

    def __missing__(self, lower: bytes) -> bool:
        decided = self._decide(lower)
        if len(lower) <= _LONGEST_BYTES:
            if len(self) >= _MOST:
                self.clear()
            self[lower] = decided
        return decided
