"""The least there is between a client and an agent: it dials through the LocalAPI and speaks to the agent itself.

    python -m bench.relay.bare SOCKET IP PORT CONNECTIONS SECONDS     0 connections: one large body

No relay, so no authentication, and nothing is checked: what our relay adds is the difference. It takes wrk's place.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.relay.figures import BARE, Figures
from bench.relay.load import BODY_SECONDS, Failed, cpu_seconds, output_of, read_answer
from bench.relay.upstream import BIG_PATH
from elizacloud.tailnet import dial_request

_ANSWER_BYTES = 16384


@dataclass(frozen=True, slots=True)
class BareClient:
    """The contender: a process of its own for each measurement. `pids` is the tailscaled that it dials through."""

    socket: Path
    ip: str
    port: int
    pids: Sequence[int]
    name: str = BARE
    version: str = ""
    only: Collection[int] | None = None

    async def measure(self, connections: int, seconds: int) -> Figures:
        used = cpu_seconds(self.pids)
        measured = json.loads(await self._run(connections, seconds))
        used = cpu_seconds(self.pids) - used
        rate = measured["requests"] / measured["seconds"]
        return Figures(rate, measured["p50"], measured["p99"], used / measured["requests"])

    async def large_body(self) -> float:
        return float(await self._run(0, BODY_SECONDS))

    async def _run(self, connections: int, seconds: int) -> str:
        own = (sys.executable, "-m", "bench.relay.bare")
        return await output_of([*own, self.socket, self.ip, self.port, connections, seconds], within_seconds=seconds)


def dialled(path: str, ip: str, port: int) -> socket.socket:
    """A connection to the peer. Raises Failed."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(BODY_SECONDS)
    connection.connect(path)
    connection.sendall(dial_request(ip, port))
    answer = connection.recv(_ANSWER_BYTES)
    if not answer.startswith(b"HTTP/1.1 101 "):
        raise Failed(f"the dial was answered with {answer[:60]!r}")
    return connection


def load(connections: Sequence[socket.socket], request: bytes, seconds: float) -> tuple[list[float], float]:
    """The time of each answer, and of all: each connection has one request on its way, always."""
    poll = select.epoll()
    sent: dict[int, float] = {}
    by_descriptor = {each.fileno(): each for each in connections}
    began = time.perf_counter()
    for descriptor, connection in by_descriptor.items():
        poll.register(descriptor, select.EPOLLIN)
        sent[descriptor] = time.perf_counter()
        connection.send(request)
    times = []
    end = began + seconds
    now = began
    while now < end:
        for descriptor, _ in poll.poll(BODY_SECONDS):
            connection = by_descriptor[descriptor]
            if not connection.recv(_ANSWER_BYTES):
                raise Failed("the agent closed a connection")
            now = time.perf_counter()
            times.append(now - sent[descriptor])
            sent[descriptor] = now
            connection.send(request)
    return times, now - began


def main() -> None:
    path, ip, port, connections, seconds = sys.argv[1:]
    head = f"HTTP/1.1\r\nHost: {ip}:{port}\r\n\r\n"
    if connections == "0":
        print(read_answer(dialled(path, ip, int(port)), f"GET {BIG_PATH} {head}".encode()))
        return
    dials = [dialled(path, ip, int(port)) for _ in range(int(connections))]
    times, took = load(dials, f"GET / {head}".encode(), float(seconds))
    times.sort()
    p50, p99 = times[len(times) // 2], times[int(len(times) * 0.99)]
    print(json.dumps({"requests": len(times), "seconds": took, "p50": p50, "p99": p99}))


if __name__ == "__main__":
    main()
