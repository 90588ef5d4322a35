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
from elizacloud.settings import child_environment

ROOT = Path(__file__).parents[2]
SPARE_SECONDS = 10
LOOK_SECONDS = 0.1
LOOK_TIMEOUT_SECONDS = 5
BODY_SECONDS = 60
_READ_BYTES = 256 * 1024
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


class Failed(RuntimeError):
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
    used = cpu_seconds(pids)
    output = parse_wrk(await output_of([*argv, url], within_seconds=seconds))
    used = cpu_seconds(pids) - used
    return Figures(output.requests_per_second, output.p50_seconds, output.p99_seconds, used / output.requests)


async def output_of(argv: Sequence[object], *, within_seconds: float) -> str:
    """What a load client prints, with some time to spare. Raises Failed when it fails or does not end."""
    lines: list[bytes] = []
    name = Path(str(argv[0])).name
    environment = {**child_environment(), "PYTHONPATH": str(ROOT)}
    async with spawn([str(each) for each in argv], name=name, env=environment, log=lines.append) as child:
        try:
            async with asyncio.timeout(within_seconds + SPARE_SECONDS):
                ended = await child.wait()
        except TimeoutError as error:
            raise Failed(f"{name} did not end") from error
    text = b"\n".join(lines).decode(errors="replace")
    if not ended.clean:
        raise Failed(f"{name}: {ended}: {text[-200:]}")
    return text


async def until_answered(url: str, headers: Iterable[str], *, within_seconds: float) -> None:
    """Return when a small request is answered well. Raises Failed when it is not in time, with the last answer."""
    last = "no answer"
    try:
        async with asyncio.timeout(within_seconds):
            while True:
                try:
                    last = await asyncio.to_thread(_answer, *_request(url, headers))
                except OSError as error:
                    last = str(error)
                if last.startswith("HTTP/1.1 200"):
                    return
                await asyncio.sleep(LOOK_SECONDS)
    except TimeoutError as error:
        raise Failed(f"it answers nothing good in {within_seconds:g} s: {last}") from error


def _answer(host: str, port: int, request: bytes) -> str:
    with socket.create_connection((host, port), timeout=LOOK_TIMEOUT_SECONDS) as connection:
        connection.sendall(request)
        return connection.recv(4096).decode(errors="replace")


async def large_body(url: str, headers: Iterable[str]) -> float:
    """Bytes a second of one large body, read as fast as it comes. Raises Failed."""
    return await asyncio.to_thread(_read_body, *_request(url, headers))


def _request(url: str, headers: Iterable[str]) -> tuple[str, int, bytes]:
    parts = urlsplit(url)
    request = f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\n" + "".join(f"{each}\r\n" for each in headers)
    return parts.hostname or "", parts.port or 80, f"{request}\r\n".encode()


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
    """CPU time that these processes and all their living descendants have used so far. Raises Failed when one has ended."""
    total = 0
    waiting = list(pids)
    while waiting:
        pid = waiting.pop()
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            for task in Path(f"/proc/{pid}/task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except OSError as error:
            raise Failed("its process has ended") from error
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")
