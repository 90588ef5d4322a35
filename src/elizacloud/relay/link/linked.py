"""One relay worker as the hub sees it: its stream, its name and process, and the answers that it owes."""

from __future__ import annotations

import asyncio
import itertools
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from elizacloud.errors import Invalid
from elizacloud.relay.link import messages

logger = structlog.get_logger()

Answer = messages.ProbeDone | messages.DrainDone | None
_HELLO_SECONDS = 5.0
_BACKLOG_BYTES = 128 << 20
"""Two snapshots of the largest size: a worker with more than this unread is not reading."""


class LinkedWorker:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.name = "unknown"
        self.pid = _peer_pid(writer.get_extra_info("socket"))
        self.said_goodbye = False

    async def read_hello(self) -> messages.Hello:
        """The first message. Raises Invalid when it is another, or of another protocol, TimeoutError."""
        line = await messages.read_line(self._reader, within_seconds=_HELLO_SECONDS)
        hello = messages.decode_up(line) if line is not None else None
        if not isinstance(hello, messages.Hello):
            raise Invalid("cannot link: a worker must say hello first")
        if hello.protocol != messages.PROTOCOL:
            raise Invalid(
                f"cannot link a worker that speaks protocol {hello.protocol}: this one is {messages.PROTOCOL}; "
                "run control plane and relay of one version"
            )
        self.name = hello.worker
        return hello

    async def read(self) -> messages.Up | None:
        """The next message, None at the end. Raises Invalid, TimeoutError when the worker fell silent, OSError."""
        line = await messages.read_line(self._reader, within_seconds=messages.SILENCE_SECONDS)
        return None if line is None else messages.decode_up(line)

    def send(self, message: messages.Down) -> None:
        transport = self._writer.transport
        if transport.is_closing():
            return
        if transport.get_write_buffer_size() > _BACKLOG_BYTES:
            self.cut("it does not read what it is sent")
            return
        self._writer.write(messages.encode(message))

    def cut(self, reason: str) -> None:
        if reason:
            logger.info("cutting a relay worker off", worker=self.name, reason=reason)
        self._writer.transport.abort()


class Answers:
    """Questions to workers that have no answer yet. A worker that is lost answers None."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: dict[tuple[LinkedWorker, int], asyncio.Future[Answer]] = {}

    @contextmanager
    def expected(self, worker: LinkedWorker) -> Iterator[tuple[int, asyncio.Future[Answer]]]:
        number = next(self._numbers)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._open[worker, number] = future
        try:
            yield number, future
        finally:
            del self._open[worker, number]

    def give(self, worker: LinkedWorker, number: int, answer: Answer) -> None:
        """Late answers, to questions that nobody waits for any more, are dropped."""
        future = self._open.get((worker, number))
        if future is not None and not future.done():
            future.set_result(answer)

    def lose(self, worker: LinkedWorker) -> None:
        for (asked, _), future in self._open.items():
            if asked is worker and not future.done():
                future.set_result(None)


def _peer_pid(connection: socket.socket) -> int:
    """The process id of the other end, from the kernel (SO_PEERCRED, unix(7))."""
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", credentials)[0])
