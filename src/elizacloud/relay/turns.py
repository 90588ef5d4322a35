"""Who is served next when more has come than a moment allows: owners take turns, and what comes waits for little.

The event loop serves everything that has come before it looks again, so an owner with many connections would be served
with all of them before anybody else is. So after some work the loop looks first, and what comes then waits in a line for
each owner, unread. Whoever has much to do waits for itself; as long as little comes, nobody waits. One small thing of an
owner, a request or its answer, does not wait in the line between the looks: it costs the others less than it would lose there.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import structlog

from elizacloud.relay.reading import SHORT_READ_BYTES

logger = structlog.get_logger()

BULK_BYTES = 32 << 10
"""Of so many bytes that wait the source is not read on meanwhile."""
_EVENT = 0.5
_BYTES = 1 / (20 << 10)
"""Work is counted in requests: one is two events, a head that comes and its answer, or 20 KB that pass."""
_SHARED, _ALONE = 2.0, 64.0
"""Work until the loop looks again. To look takes as long as a tenth of a request, which one owner alone need not pay."""
_PIECE_BYTES, _ANY_BYTES = SHORT_READ_BYTES, 1 << 62
"""Of what has come for an owner, taken at once."""
_SMALL_BYTES, _MOST_AHEAD = 8 << 10, 16
"""Between two looks, what is taken ahead of the line: one thing of this size of an owner, and so many of all."""
_SHARED_SECONDS = 1.0
"""After others were seen."""
_MOST_ADDRESSES = 4096


class Turns:
    """One a worker."""

    def __init__(
        self,
        call_soon: Callable[[Callable[[], None]], object] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._call_soon = call_soon or asyncio.get_running_loop().call_soon
        self._clock = clock or asyncio.get_running_loop().time
        self._most = _PIECE_BYTES
        """Bytes that are taken at once."""
        self._left = _SHARED
        """Until the loop looks again; it has been asked to when nothing is left."""
        self._last_owner = ""
        self._shared_until = 0.0
        self._lines: dict[str, deque[tuple[int, Callable[[int], None]]]] = {}
        """What waits, by owner, and how many bytes it has; the first owner is next."""
        self._went_ahead: set[str] = set()
        """Owners of whom nothing more is taken ahead of the line until the loop has looked."""
        self._owner_at: dict[str, str] = {}
        """The owner who came last from an address."""

    @property
    def alone(self) -> bool:
        """One owner only was seen of late: nobody else waits while much is done at once."""
        return self._most == _ANY_BYTES

    def came_from(self, address: str, owner: str) -> None:
        """A new connection waits under its address until its first head is read, and then is this owner's.

        So the next one from there is no other owner: else one who opens connections would share the worker with itself.
        """
        if len(self._owner_at) >= _MOST_ADDRESSES:
            self._owner_at.clear()
        self._owner_at[address] = owner

    def now(self, owner: str, size: int, take: Callable[[int], None]) -> int:
        """How many of so many bytes that came for this owner are to be taken now; with 0, `take` is told in its turn."""
        if owner != self._last_owner and self._owner_at.get(owner) != self._last_owner:
            self._last_owner = owner
            self._shared_until = self._clock() + _SHARED_SECONDS
            self._left = min(self._left, _SHARED)
            self._most = _PIECE_BYTES
        left = self._left
        if left > 0:
            if size > self._most:
                size = self._most
            self._left = left = left - _EVENT - size * _BYTES
            if left <= 0:
                self._is_over(owner)
            return size
        ahead = self._went_ahead
        if size <= _SMALL_BYTES and owner not in ahead and len(ahead) < _MOST_AHEAD:
            ahead.add(owner)
            return size
        line = self._lines.get(owner)
        if line is None:
            line = self._lines[owner] = deque()
        line.append((size, take))
        return 0

    def _is_over(self, owner: str) -> None:
        """The moment, by what this owner had: nothing of it goes ahead of the line, and the loop is asked to look."""
        self._went_ahead.add(owner)
        self._call_soon(self._looked)

    def _looked(self) -> None:
        """The loop has seen what came: the next ones, one of each owner."""
        shared = self._clock() < self._shared_until
        self._left, self._most = (_SHARED, _PIECE_BYTES) if shared else (_ALONE, _ANY_BYTES)
        self._went_ahead.clear()
        while self._lines and self._left > 0:
            owner, line = next(iter(self._lines.items()))
            del self._lines[owner]
            size, take = line.popleft()
            if line:
                self._lines[owner] = line
            size = min(size, self._most)
            self._left -= _EVENT + size * _BYTES
            if self._left <= 0:
                self._is_over(owner)
            try:
                take(size)
            except Exception as error:  # this one's, and others wait behind it
                logger.error("what came could not be taken in its turn", exc_info=error)
