"""Whether an upstream that is written to faster than it reads takes anything at all: it may be slow, but not stand still."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from elizacloud.relay.deadline import Deadline


class Room:
    """In what waits to be written to one transport. Costs nothing while there is some."""

    __slots__ = ("_deadline", "_full", "_seconds", "_transport", "_unsent")

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, full: Callable[[], None]) -> None:
        self._transport = transport
        self._deadline = Deadline(loop, self._look)
        self._full = full
        self._seconds = 0.0
        self._unsent = 0
        """Bytes, when it was last looked."""

    def expect(self, within_seconds: float) -> None:
        """Call `full` when nothing was taken for so long, until `found` is called."""
        self._unsent = self._transport.get_write_buffer_size()
        self._seconds = within_seconds
        self._deadline.set(within_seconds)

    def found(self) -> None:
        self._deadline.clear()

    def stop(self) -> None:
        """Let go of the event loop; it is not used again."""
        self._deadline.stop()

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() != self._unsent:
            self.expect(self._seconds)
        else:
            self._full()
