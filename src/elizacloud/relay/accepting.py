"""Connections taken from a listening socket that several workers share, one at each turn of the event loop.

All workers wait at one queue in the kernel, so a worker that stops or dies takes no waiting connection with it, as it
would with a queue of its own (SO_REUSEPORT). One at a time, because whoever is busy then comes back later and the
others take the next ones; asyncio's own server takes all that wait. docs/decisions/0007 has the numbers.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import structlog

from elizacloud.relay.headers.forwarded import Peer
from elizacloud.relay.tls_closing import LONGEST_SECONDS, Closings

logger = structlog.get_logger()

_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Handshakes:
    """How to speak TLS. `began` says whether a client at this address may begin; if so, `ended` follows."""

    context: ssl.SSLContext
    within_seconds: float
    peer_at: Callable[[object], Peer]
    began: Callable[[Peer], bool]
    ended: Callable[[Peer], None]


class Acceptor:
    """`arriving` counts connections between the kernel's queue and the protocol: in a TLS handshake."""

    def __init__(
        self,
        listener: socket.socket,
        protocol: Callable[[], asyncio.BaseProtocol],
        *,
        handshakes: Handshakes | None,
        on_arrived: Callable[[], None],
        closings: Closings | None = None,
    ) -> None:
        """Without `handshakes` the listener does not speak TLS."""
        self._listener = listener
        self._protocol = protocol
        self._handshakes = handshakes
        self._on_arrived = on_arrived
        self._closings = closings or Closings()
        self._loop = asyncio.get_running_loop()
        self._arrivals: set[asyncio.Task[Any]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._open = False

    @property
    def arriving(self) -> int:
        return len(self._arrivals)

    def start(self) -> None:
        self._listener.setblocking(False)
        self._open = True
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def stop(self) -> None:
        """Take no more, and let go of the socket: what waits in its queue is for the others that have it."""
        if not self._open:
            return
        self._open = False
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._listener.fileno())
        self._listener.close()

    def abort(self) -> None:
        """End the handshakes that are under way."""
        for task in tuple(self._arrivals):
            task.cancel()

    def _accept(self) -> None:
        try:
            connection, address = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return  # another worker was faster, or the client has left
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            logger.error("no new connections for a moment", reason=error.strerror)
            self._loop.remove_reader(self._listener.fileno())
            self._pause = self._loop.call_later(_PAUSE_SECONDS, self._again)
            return
        connection.setblocking(False)
        if self._handshakes is None:
            arriving = self._arrive(connection)
        elif self._handshakes.began(peer := self._handshakes.peer_at(address)):
            arriving = self._shake_hands(self._handshakes, connection, peer)
        else:
            connection.close()
            return
        task = self._loop.create_task(arriving, name="arriving client")
        self._arrivals.add(task)
        task.add_done_callback(self._arrived)

    def _again(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._accept)

    async def _shake_hands(self, handshakes: Handshakes, connection: socket.socket, peer: Peer) -> None:
        try:
            transport = await self._arrive(
                connection,
                ssl=handshakes.context,
                ssl_handshake_timeout=handshakes.within_seconds,
                ssl_shutdown_timeout=LONGEST_SECONDS,
            )
            if transport is not None:
                self._closings.watch(transport)
        finally:
            handshakes.ended(peer)

    async def _arrive(self, connection: socket.socket, **tls: Any) -> asyncio.Transport | None:
        try:
            transport, _ = await self._loop.connect_accepted_socket(self._protocol, connection, **tls)
        except OSError:  # also a failed handshake (ssl.SSLError), or a late one (ConnectionAbortedError)
            connection.close()
            return None
        return transport

    def _arrived(self, task: asyncio.Task[Any]) -> None:
        self._arrivals.discard(task)
        self._on_arrived()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a connection could not be taken", exc_info=error)
