"""The load: wrk for requests, one reader for a large body; and the CPU time that a relay used meanwhile."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from bench.relay.figures import Figures
from bench.relay.upstream import BIG_BYTES
from elizacloud.processes import spawn

WRK_SPARE_SECONDS = 10
BODY_SECONDS = 60
_READ_BYTES = 256 * 1024
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


class Failed(Exception):
    """A measurement that says nothing: errors among the answers, or no answer."""


@dataclass(frozen=True, slots=True)
class WrkOutput:
    requests: int
    requests_per_second: float
    p50_seconds: float
    p99_seconds: float


def parse_wrk(text: str) -> WrkOutput:
    """What `wrk --latency` prints. Raises Failed when answers were wrong or did not come."""
    for problem in (r"Non-2xx or 3xx responses: \d+", r"Socket errors: .*"):
        if found := re.search(problem, text):
            raise Failed(found[0])
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    count = re.search(r"(\d+) requests in", text)
    p50 = re.search(r"(?m)^\s+50%\s+([\d.]+)([a-z]+)", text)
    p99 = re.search(r"(?m)^\s+99%\s+([\d.]+)([a-z]+)", text)
    if rate is None or count is None or p50 is None or p99 is None or int(count[1]) == 0:
        raise Failed(f"wrk measured nothing: {' '.join(text.split())[-200:]}")
    return WrkOutput(int(count[1]), float(rate[1]), _seconds(p50), _seconds(p99))


def _seconds(found: re.Match[str]) -> float:
    return float(found[1]) * _UNITS[found[2]]


async def wrk(
    program: Sequence[str], url: str, headers: Iterable[str], *, connections: int, seconds: float, pids: Sequence[int]
) -> Figures:
    """One measurement; `pids` are the relay's processes. Raises Failed."""
    argv = [*program, "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency"]
    for header in headers:
        argv += ["-H", header]
    lines: list[bytes] = []
    used = cpu_seconds(pids)
    async with spawn([*argv, url], name="wrk", env={"PATH": os.defpath}, log=lines.append) as child:
        try:
            async with asyncio.timeout(seconds + WRK_SPARE_SECONDS):
                await child.wait()
        except TimeoutError as error:
            raise Failed("wrk did not end") from error
    used = cpu_seconds(pids) - used
    output = parse_wrk(b"\n".join(lines).decode(errors="replace"))
    return Figures(output.requests_per_second, output.p50_seconds, output.p99_seconds, used / output.requests)


async def large_body(url: str, headers: Iterable[str]) -> float:
    """Bytes a second of one large body, read as fast as it comes. Raises Failed."""
    parts = urlsplit(url)
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n" + "".join(f"{each}\r\n" for each in headers)
    return await asyncio.to_thread(_read_body, parts.hostname or "", parts.port or 80, f"{request}\r\n".encode())


def _read_body(host: str, port: int, request: bytes) -> float:
    try:
        with socket.create_connection((host, port), timeout=BODY_SECONDS) as connection:
            return read_answer(connection, request)
    except OSError as error:
        raise Failed(f"large body: {error}") from error


def read_answer(connection: socket.socket, request: bytes) -> float:
    """Send the request and read a head and BIG_BYTES of body (chunk sizes come on top); bytes a second. Raises Failed."""
    began = time.perf_counter()
    connection.sendall(request)
    buffer = memoryview(bytearray(_READ_BYTES))
    received = connection.recv_into(buffer)
    if not buffer[:received].tobytes().startswith(b"HTTP/1.1 200"):
        raise Failed(f"large body: {buffer[:40].tobytes()!r}")
    while received < BIG_BYTES:
        if not (more := connection.recv_into(buffer)):
            raise Failed(f"large body: it ended after {received} bytes")
        received += more
    return BIG_BYTES / (time.perf_counter() - began)


def cpu_seconds(pids: Sequence[int]) -> float:
    """CPU time that these processes and all their living descendants have used so far."""
    total = 0
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
        for task in Path(f"/proc/{pid}/task").iterdir():
            waiting += [int(child) for child in (task / "children").read_text().split()]
    return total / os.sysconf("SC_CLK_TCK")
