"""The access log: one JSON line a request, on standard error, when it is over. No query strings, no secrets.

Lines are collected and written a few times a second by a thread, so that a slow reader of the log holds up nobody; when
it does not come after them, lines are dropped and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
import select
import stat
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from time import perf_counter
from urllib.parse import unquote

from elizacloud.relay.edge import Request
from elizacloud.relay.http1.head import RequestHead, kept_with_head

_WRITE_SECONDS = 0.25
_MOST_LINES = 20_000
_AT_ONCE = 64
_LONGEST_PATH = 512
_REMEMBERED_BYTES = 256
"""Paths over this are read each time, so that 4096 of them stay under a few MB, whoever asks for what."""
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^/?#]*")
# Tokens that someone put into a path, and the path whose last part is what fetches a token.
_SECRETS = re.compile(r"(?<=/)ec[a-z]{0,2}_[^/]*|(?<=/cli-session/)[^/]+", re.IGNORECASE)


def logged_path(path: bytes) -> str:
    """A target up to its query, as JSON: no fragment, no authority, nothing that looks like a credential of ours."""
    # Cut first: at each of its characters a search may look on to the end, and a path may have sixty thousand.
    return _remembered(path) if len(path) <= _REMEMBERED_BYTES else _read(path[: 3 * _LONGEST_PATH])


def _read(path: bytes) -> str:
    plain = _AUTHORITY.sub("", path.decode("latin-1"), count=1)
    plain = unquote(plain.partition("#")[0], "latin-1")
    return quoted(_SECRETS.sub("***", plain)[:_LONGEST_PATH])


_remembered = lru_cache(4096)(_read)


def _to_stderr(lines: str) -> None:
    write_lines(sys.stderr.fileno(), lines.encode())


def write_lines(output: int, lines: bytes) -> None:
    """All workers share the output. The kernel keeps one write to a file together, to a pipe only up to PIPE_BUF: there
    whole lines are written in pieces of that size. Each write lets go of the GIL and has to get it again, so a few."""
    view, at = memoryview(lines), 0
    with contextlib.suppress(OSError):  # whoever read it is gone, or its disk is full; requests go on
        most = len(lines) if stat.S_ISREG(os.fstat(output).st_mode) else select.PIPE_BUF
        while at < len(lines):
            end = len(lines) if len(lines) - at <= most else lines.rfind(b"\n", at, at + most) + 1
            at += os.write(output, view[at : end or len(lines)])


def logged_method(method: bytes) -> str:
    """The method if it is a word in capitals, as all methods are: any other text may hold a secret."""
    return method.decode() if len(method) <= 24 and method.isalpha() and method.isupper() else "?"


@kept_with_head
def _logged(head: RequestHead) -> str:
    """Method and path, as members of a JSON object."""
    return f'"method":"{logged_method(head.method)}","path":{logged_path(head.target.partition(b"?")[0])}'


_Entry = tuple[float, float, Request, int, str, str, int, int]
"""When a request was over and how long it took in seconds, and what `add` is told."""


class AccessLog:
    """`share` of the requests get a line: 1 all, 0 none."""

    def __init__(
        self, share: float, *, write: Callable[[str], None] = _to_stderr, clock: Callable[[], float] = time.time
    ) -> None:
        self._share = share
        self._write = write
        self._clock = clock
        self._entries: list[_Entry] = []
        """Not lines yet: made one at a time, between requests, a line takes three times as long as among others."""
        self._lines: list[str] = []
        self._dropped = 0
        self._some = asyncio.Event()
        self._second = -1
        self._second_text = ""

    def add(
        self, request: Request, status: int, outcome: str, upstream: str, bytes_in: int = 0, bytes_out: int = 0
    ) -> None:
        """`status` is 0 when no answer began; `outcome` and `upstream` are those of the metrics."""
        if self._share < 1 and random.random() >= self._share:
            return
        entries = self._entries
        if not entries:
            self._some.set()
        seconds = perf_counter() - request.began_at
        entries.append((self._clock(), seconds, request, status, outcome, upstream, bytes_in, bytes_out))
        if len(entries) >= _AT_ONCE:
            self._make_lines()

    async def run(self) -> None:
        """Write until cancelled; what is left then is written before this returns."""
        try:
            while True:
                await self._some.wait()
                await asyncio.sleep(_WRITE_SECONDS)
                await asyncio.to_thread(self._write, self._take())
        finally:
            if left := self._take():
                self._write(left)

    def _make_lines(self) -> None:
        entries, self._entries = self._entries, []
        room = _MOST_LINES - len(self._lines)
        self._dropped += max(0, len(entries) - room)
        for at, seconds, request, status, outcome, upstream, bytes_in, bytes_out in entries[:room]:
            self._lines.append(
                f'{{"timestamp":"{self._time(at)}","event":"request","id":"{request.id}",'
                f'"trace":"{request.trace_id}","client":"{request.client}",{_logged(request.head)},'
                f'"status":{status},"outcome":"{outcome}","upstream":"{upstream}",'
                f'"agent":{quoted(request.agent_id)},"owner":{quoted(request.owner_id)},'
                f'"seconds":{seconds:.6f},"bytes_in":{bytes_in},"bytes_out":{bytes_out}}}\n'
            )

    def _take(self) -> str:
        self._some.clear()
        self._make_lines()
        lines, self._lines = self._lines, []
        dropped, self._dropped = self._dropped, 0
        if dropped:
            now = self._time(self._clock())
            lines.append(f'{{"timestamp":"{now}","event":"access log lines dropped","count":{dropped}}}\n')
        return "".join(lines)

    def _time(self, at: float) -> str:
        second = int(at)
        if second != self._second:
            self._second = second
            self._second_text = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{int((at - second) * 1000):03}Z"
