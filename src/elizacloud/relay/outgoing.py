"""Small writes wait until all that has come was looked at, and leave one behind the other.

Each write wakes whoever reads the other end, which costs a tenth of a request; who is still busy with the one before need not
be woken. Only while one owner is alone (surroundings.py): nobody's bytes wait for another owner's work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

_WORTH_A_WRITE_BYTES = 16 << 10


class Outgoing:
    """What is written to one transport, in order."""

    __slots__ = ("_call_soon", "_transport", "_waiting")

    def __init__(self, transport: asyncio.Transport, call_soon: Callable[[Callable[[], None]], object]) -> None:
        self._transport = transport
        self._call_soon = call_soon
        self._waiting = b""

    def write(self, data: bytes, *, may_wait: bool) -> None:
        waiting = self._waiting
        if len(waiting) + len(data) >= _WORTH_A_WRITE_BYTES:
            self.flush()
            self._transport.write(data)
        elif waiting:
            self._waiting = waiting + data
        elif may_wait:
            self._waiting = data
            self._call_soon(self.flush)
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Let what waits leave now: before the transport is closed, which would forget it."""
        waiting, self._waiting = self._waiting, b""
        if waiting and not self._transport.is_closing():
            self._transport.write(waiting)
