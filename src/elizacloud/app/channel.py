"""Lines of JSON between the relay's supervisor and one worker, over a socket pair that the worker inherits.

    down  the netmap's feed (tailnet/feed.py), of which `beat` comes once a second; {"metrics": number}
          {"succeeded": true}   another worker has taken over: there is no hurry to end
    up    {"ready": true}   it serves, and knows table and netmap      {"beat": true}   the answer to a beat
          {"again": true}   tell me the whole netmap                   {"metrics": number, "families": [..]}

What came is handled in the step of the event loop that read it: a netmap that changed must be known at once.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Mapping
from typing import Any, cast

import structlog

Message = Mapping[str, Any]

BACKLOG_BYTES = 64 << 20
"""Some whole netmaps of the largest size: an end with more than this unread is not reading."""

log = structlog.get_logger()


class Channel(asyncio.Protocol):
    """One end. `lost` is called once, when the other end is gone or talks nonsense."""

    def __init__(self, hear: Callable[[Message], None], lost: Callable[[], None]) -> None:
        self._hear = hear
        self._lost = lost
        self._rest = b""
        self._transport: asyncio.Transport | None = None

    async def open(self, end: socket.socket) -> None:
        """Speak over this end, which belongs to the channel from now on."""
        end.setblocking(False)
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=end)

    def send(self, message: Message) -> None:
        """Nothing happens when the other end is gone."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size() > BACKLOG_BYTES:
            transport.abort()
            return
        transport.write(json.dumps(message, separators=(",", ":")).encode() + b"\n")

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            try:
                self._hear(json.loads(line))
            except (ValueError, KeyError, TypeError) as error:
                log.error("a message between relay and worker is not understood", reason=repr(error))
                if self._transport is not None:
                    self._transport.abort()
                return

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._lost()
