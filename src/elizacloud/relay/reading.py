"""Reads of a bounded size. uvloop reads 256 KB at once otherwise: too long a moment for everybody else."""

from __future__ import annotations

import asyncio
from abc import abstractmethod

READ_BYTES = 64 << 10

# One for all connections: event loops fill it and hand it over in one step.
_buffer = memoryview(bytearray(READ_BYTES))


class BoundedReads(asyncio.BufferedProtocol):
    """Calls `data_received` like asyncio.Protocol, with READ_BYTES at most."""

    __slots__ = ()

    def get_buffer(self, sizehint: int) -> memoryview:
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(_buffer[:nbytes]))

    @abstractmethod
    def data_received(self, data: bytes) -> None: ...
