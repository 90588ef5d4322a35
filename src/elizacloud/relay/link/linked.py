"""One relay worker as the hub sees it: its stream, its name and process, and the answers that it owes."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog

from elizacloud.errors import Invalid
from elizacloud.relay.link import messages

logger = structlog.get_logger()

Answer = messages.ProbeDone | messages.DrainDone | None
_HELLO_SECONDS = 5.0
_BACKLOG_BYTES = 128 << 20
"""Two snapshots of the largest size: a worker with more than this unread is not reading."""
_LOST_SECONDS = 30.0
"""A worker that lives tries to link again every other second."""


@dataclass(frozen=True, slots=True)
class Process:
    """A worker's process. An id is used again, so when it started belongs to it."""

    pid: int
    """0 when it cannot be seen from here: it is in another container."""
    started: str

    @classmethod
    def of(cls, pid: int) -> Process:
        return cls(pid, _started(pid))

    def lives(self) -> bool:
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        return _started(self.pid) == self.started


@dataclass(frozen=True, slots=True)
class Lost:
    """A worker whose link broke without a goodbye, and when."""

    process: Process
    at: float

    def may_serve(self, now: float) -> bool:
        """False when its process has ended, or cannot be seen and had the time to link again."""
        return self.process.lives() if self.process.pid > 0 else now - self.at < _LOST_SECONDS


class LinkedWorker:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.name = "unknown"
        self.process = Process.of(_peer_pid(writer.get_extra_info("socket")))
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


def _started(pid: int) -> str:
    """When it started, in ticks since boot (field 22 of proc(5)'s stat); empty when /proc does not show it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""
