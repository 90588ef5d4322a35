"""Reads of a bounded size. uvloop reads 256 KB at once otherwise: too long a moment for everybody else, if there is anybody."""

from __future__ import annotations

import asyncio
from abc import abstractmethod

READ_BYTES = 64 << 10
SHORT_READ_BYTES = 32 << 10
"""Of long bodies while owners share the worker."""
LONG_READ_BYTES = 256 << 10
"""Of an answer whose owner is alone: a fifth less CPU time. Uploads gain nothing, since sockets to agents take less at once."""

# One for all connections: event loops fill it and hand it over in one step. More than a read has room for what TLS holds.
_buffer = memoryview(bytearray(1 << 20))
BOUNDED = _buffer[:READ_BYTES]
SHORT = _buffer[:SHORT_READ_BYTES]
LONG = _buffer[:LONG_READ_BYTES]


class BoundedReads(asyncio.BufferedProtocol):
    """Calls `data_received` like asyncio.Protocol, with READ_BYTES at most."""

    __slots__ = ()

    def get_buffer(self, sizehint: int) -> memoryview:
        return BOUNDED

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(_buffer[:nbytes].tobytes())

    @abstractmethod
    def data_received(self, data: bytes) -> None: ...


def room_for(size: int) -> memoryview:
    """A buffer for a read that is not bounded, for a `get_buffer` that needs one."""
    return _buffer[: max(READ_BYTES, size)]
