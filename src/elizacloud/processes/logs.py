"""What a child printed: a bounded, rotated file, a tail for error messages, a live stream for whoever follows.

One process writes and follows, so following is an event, never a poll. A follower reads the files once, when it begins,
and gets all later lines from memory: a rotation in between is not seen.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import structlog

log = structlog.get_logger()

RECENT_LINES = 20
FOLLOWER_LINES = 10_000
READ_BYTES = 256 * 1024


class LogFile:
    """`write` is a LineSink. Files: `path`, and older `path.1` to `path.<keep>`, 0600, at most `max_bytes` each.

    A full disk loses lines, which the log says once there is room again; it never hurts the child or its parent.
    """

    def __init__(self, path: Path, *, max_bytes: int = 4 * 1024 * 1024, keep: int = 2) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._keep = keep
        self._recent: deque[bytes] = deque(maxlen=RECENT_LINES)
        self._followers: set[_Follower] = set()
        self._lost = 0
        self._closed = False
        self._file = self._open()
        self._size = os.fstat(self._file).st_size

    def write(self, line: bytes) -> None:
        """Append one line. Lines written after `close` are dropped."""
        if self._closed:
            return
        self._recent.append(line)
        for follower in self._followers:
            follower.put(line)
        notice = f"[{self._lost} lines lost: the disk was full]\n".encode() if self._lost else b""
        data = notice + line + b"\n"
        try:
            if self._size and self._size + len(data) > self._max_bytes:
                self._rotate()
            self._append(data)
            self._lost = 0
        except OSError as error:
            if not self._lost:
                log.warning("cannot write a log", path=str(self._path), reason=str(error))
            self._lost += 1

    def recent(self) -> str:
        """The last few lines, for the message that says why a child failed."""
        return _text(b"\n".join(self._recent))

    def read(self, tail: int) -> list[str]:
        """The last `tail` lines, also of earlier children."""
        lines: deque[bytes] = deque()
        for path in self._paths():
            try:
                lines.extendleft(_last_lines(path, tail - len(lines)))
            except FileNotFoundError:
                continue
        return [_text(line) for line in lines]

    async def follow(self, tail: int) -> AsyncGenerator[str, None]:
        """The last `tail` lines, then each new one, until `close`. A slow reader is told how many lines it missed."""
        follower = _Follower()
        self._followers.add(follower)
        try:
            if self._closed:
                follower.end()
            for line in self.read(tail):  # complete before anything else can be written: no line twice, none missed
                yield line
            async for raw in follower.lines():
                yield _text(raw)
        finally:
            self._followers.discard(follower)

    def close(self) -> None:
        """End all followers and free the file. May be called twice."""
        if not self._closed:
            self._closed = True
            os.close(self._file)
            for follower in self._followers:
                follower.end()

    def _paths(self) -> list[Path]:
        """Newest first."""
        return [self._path, *(self._path.with_name(f"{self._path.name}.{age}") for age in range(1, self._keep + 1))]

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self._path, flags, 0o600)
        os.fchmod(file, 0o600)
        return file

    def _rotate(self) -> None:
        *newer, _ = paths = self._paths()
        for path, older in reversed(list(zip(newer, paths[1:], strict=True))):
            if path.exists():
                path.replace(older)
        if not newer:
            self._path.unlink()
        previous, self._file, self._size = self._file, self._open(), 0
        os.close(previous)

    def _append(self, data: bytes) -> None:
        written = os.write(self._file, data)
        if written < len(data):
            os.ftruncate(self._file, self._size)  # no torn line
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written


class _Follower:
    """A bounded queue between the writer and one reader."""

    def __init__(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._missed = 0
        self._ended = False
        self._news = asyncio.Event()

    def put(self, line: bytes) -> None:
        if len(self._waiting) == FOLLOWER_LINES:
            self._waiting.popleft()
            self._missed += 1
        self._waiting.append(line)
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    async def lines(self) -> AsyncIterator[bytes]:
        while True:
            if self._missed:
                missed, self._missed = self._missed, 0
                yield f"[{missed} lines missed: reading is slower than writing]".encode()
            elif self._waiting:
                yield self._waiting.popleft()
            elif self._ended:
                return
            else:
                self._news.clear()
                await self._news.wait()


def _last_lines(path: Path, count: int) -> list[bytes]:
    """At most `count` lines from the end of a file, the last one first."""
    if count <= 0:
        return []
    with path.open("rb") as file:
        start = file.seek(0, os.SEEK_END)
        data = b""
        while start and data.count(b"\n") <= count:
            begin = max(0, start - READ_BYTES)
            file.seek(begin)
            data = file.read(start - begin) + data
            start = begin
    return data.split(b"\n")[:-1][-count:][::-1]


def _text(line: bytes) -> str:
    return line.decode(errors="replace")
