"""TLS connections on their way out: each stays until its client has all that was written, and not for long after that.

The event loop gives a connection a fixed time from `close()` to the client's own goodbye (close_notify), and drops what has
not left by then: too short for whoever reads slowly, too long for the many who never say goodbye. So it gets a long one,
and whoever has everything and stays silent is cut here.
"""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios

LONGEST_SECONDS = 600.0
"""From `close()` to the last byte; a client may stop reading for good."""
_LOOK_SECONDS = 3.0
_GOODBYE_BYTES = 64
"""A close_notify has some thirty, and a client that vanished never acknowledges it."""
_TCP_INFO_BYTES = 128
_BYTES_ACKED = struct.Struct("=120xQ")
"""`tcpi_bytes_acked` of linux/tcp.h, since Linux 4.1."""


class Closings:
    def __init__(self, *, look_seconds: float = _LOOK_SECONDS) -> None:
        self._look_seconds = look_seconds
        self._transports: set[asyncio.Transport] = set()
        self._delivered: dict[asyncio.Transport, int] = {}
        """How much those had delivered that were closing, and had nothing left, at the last look. The kernel may have
        nothing in the moment before the loop gives it more: only if it still has the same was there no more."""
        self._loop = asyncio.get_running_loop()

    def watch(self, transport: asyncio.Transport) -> None:
        if not self._transports:
            self._loop.call_later(self._look_seconds, self._look)
        self._transports.add(transport)

    def _look(self) -> None:
        before, self._delivered = self._delivered, {}
        for transport in tuple(self._transports):
            if not transport.is_closing():
                continue
            connection: socket.socket | None = transport.get_extra_info("socket")
            if connection is None:
                self._transports.discard(transport)  # it has ended
            elif (count := _delivered_bytes(connection)) is None:
                continue
            elif count == before.get(transport):
                transport.abort()
            else:
                self._delivered[transport] = count
        if self._transports:
            self._loop.call_later(self._look_seconds, self._look)


def _delivered_bytes(connection: socket.socket) -> int | None:
    """How much the other end has acknowledged; None while there is more left than our goodbye."""
    (left,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)))  # SIOCOUTQ, tcp(7)
    if left > _GOODBYE_BYTES:
        return None
    (count,) = _BYTES_ACKED.unpack_from(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_BYTES))
    return int(count)
