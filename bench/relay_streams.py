"""What many open connections cost one worker, and what one owner can do to another. One table, printed and saved.

    python -m bench.relay_streams [--sockets 10000] [--streams 1000]

Idle WebSockets: how much the worker's own memory grows. Event streams: how late their events come. Fairness: the p99 of
one owner's requests, alone and while another owner does what it can from a process of its own: by turns, the median of
several rounds. All on loopback: the agents' process plays tailscaled too. `make bench-relay` has the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import uvloop
from pydantic import SecretStr

from bench.relay.load import ROOT
from bench.relay.programs import Programs, choose_cores, free_port
from bench.relay_agents import BODY_BYTES, EVENTS_PER_SECOND, TENANTS, ShortReads, Tenant, raise_file_limit
from bench.report import facts, markdown, show
from elizacloud.app.data_dir import open_data_dir
from elizacloud.auth.tokens import token_sha256
from elizacloud.cipher import Cipher
from elizacloud.model import DEFAULT_CELL_ID, Scope
from elizacloud.relay.link.snapshot import SnapshotFile
from elizacloud.settings import Settings, child_environment
from elizacloud.upstreams import KnownToken, Snapshot, Upstream

RESULTS = Path(__file__).parent / "results" / "relay-streams.md"
STREAM_SECONDS = 10.0
FAIRNESS_ROUNDS, PROBE_SECONDS = 5, 3.0
GREEDY: tuple[tuple[str, int, tuple[str, ...]], ...] = (
    ("connections", 32, ()),
    ("endless downloads", 4, ("--bodies",)),
    ("endless uploads", 4, ("--uploads",)),
)
"""What another owner does, from how many connections, and how relay_neighbour.py is told to."""
_AT_ONCE = 100
"""Connections that are being opened at a time."""
_SPARE_FILES = 1000

ONE, _ = TENANTS
WEBSOCKET = ONE.request("/ws", "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n")


class Client(ShortReads):
    """Sends a request at once, and again when `took`, which is given all that comes, says so."""

    def __init__(self, raw: bytes, took: Callable[[bytes], bool] = lambda data: False) -> None:
        self._raw = raw
        self._took = took
        self.answered = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._raw)

    def data_received(self, data: bytes) -> None:
        if not self.answered.done():
            self.answered.set_result(data)
        if self._took(data):
            self.transport.write(self._raw)

    def connection_lost(self, error: Exception | None) -> None:
        if not self.answered.done():
            self.answered.set_exception(ConnectionError("the worker closed the connection"))


async def open_all(where: int | Path, count: int, make: Callable[[], Client], expected: bytes) -> list[Client]:
    """So many connections, to a port or a unix socket, that have got the beginning of their answer."""
    loop = asyncio.get_running_loop()
    slots = asyncio.Semaphore(_AT_ONCE)

    async def open_one() -> Client:
        async with slots:
            if isinstance(where, Path):
                _, client = await loop.create_unix_connection(make, str(where))
            else:
                _, client = await loop.create_connection(make, "127.0.0.1", where)
            answer = await client.answered
            if not answer.startswith(expected):
                raise RuntimeError(f"a connection was refused: {answer[:200]!r}")
            return client

    async with asyncio.TaskGroup() as tasks:
        opened = [tasks.create_task(open_one(), name="open") for _ in range(count)]
    return [task.result() for task in opened]


class Lateness:
    """Takes the events of one stream."""

    def __init__(self, late: list[int]) -> None:
        self._late = late
        self._held = b""

    def __call__(self, data: bytes) -> bool:
        now = time.monotonic_ns()
        *events, self._held = (self._held + data).split(b"\n\n")
        self._late += [now - int(event.rpartition(b"data: ")[2]) for event in events]
        return False


async def probe(port: int, tenant: Tenant) -> list[int]:
    """The times of one request after another."""
    times: list[int] = []
    began = time.monotonic_ns()

    def took(data: bytes) -> bool:
        nonlocal began
        times.append(time.monotonic_ns() - began)
        began = time.monotonic_ns()
        return True

    [client] = await open_all(port, 1, lambda: Client(tenant.request("/"), took), b"HTTP/1.1 200 ")
    await asyncio.sleep(PROBE_SECONDS)
    client.transport.abort()
    return times


def again_at_the_end() -> Callable[[bytes], bool]:
    """Counts the bytes of a long answer."""
    left = BODY_BYTES

    def took(data: bytes) -> bool:
        nonlocal left
        left -= len(data)
        if left > 0:
            return False
        left = BODY_BYTES
        return True

    return took


@dataclass(slots=True)
class Bench:
    programs: Programs
    agents: Path
    port: int
    pid: int
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def resident_bytes(self) -> int:
        status = "".join(Path(f"/proc/{pid}/status").read_text() for pid in _tree(self.pid))
        return sum(int(size) << 10 for size in re.findall(r"VmRSS:\s+(\d+) kB", status))

    def cpu_seconds(self) -> float:
        stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in _tree(self.pid)]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / os.sysconf("SC_CLK_TCK")

    async def idle_sockets(self, count: int) -> None:
        warm = await open_all(self.port, 200, lambda: Client(WEBSOCKET), b"HTTP/1.1 101 ")
        before = self.resident_bytes()
        sockets = await open_all(self.port, count, lambda: Client(WEBSOCKET), b"HTTP/1.1 101 ")
        each = (self.resident_bytes() - before) / count
        self.rows.append((f"{count} idle WebSockets: the worker's memory", f"{each / 1024:.1f} KB each", "<= 30 KB"))
        await end_all(warm + sockets)

    async def streams(self, count: int) -> None:
        what = f"{count} event streams, {EVENTS_PER_SECOND} events a second each"
        late, used = await self._listen(self.port, ONE.request("/events"), count)
        figures = f"p50 {_ms(_percentile(late, 50))}, p99 {_ms(_percentile(late, 99))}"
        figures += f", {used / len(late) * 1e6:.0f} us CPU an event"
        if len(late) < 0.9 * count * EVENTS_PER_SECOND * STREAM_SECONDS:
            figures += f"; only {len(late)} events came"
        self.rows.append((what, figures, "p99 < 50 ms"))
        late, _ = await self._listen(self.agents, b"GET /events HTTP/1.1\r\n\r\n", count)
        self.rows.append(
            ("the same without a relay", f"p50 {_ms(_percentile(late, 50))}, p99 {_ms(_percentile(late, 99))}", "")
        )

    async def _listen(self, where: int | Path, request: bytes, count: int) -> tuple[list[int], float]:
        """How late the events came, in nanoseconds, and the worker's CPU seconds."""
        late: list[int] = []
        listeners = await open_all(where, count, lambda: Client(request, Lateness(late)), b"HTTP/1.1 200 ")
        await asyncio.sleep(1)
        late.clear()
        used = self.cpu_seconds()
        await asyncio.sleep(STREAM_SECONDS)
        used = self.cpu_seconds() - used
        await end_all(listeners)
        return late, used

    async def fairness(self) -> None:
        """By turns, so that a moment in which the machine is busy with something else is in all of them, or in one round."""
        alone: list[list[int]] = []
        beside: dict[str, list[list[int]]] = {f"{connections} {what}": [] for what, connections, _ in GREEDY}
        for _ in range(FAIRNESS_ROUNDS):
            alone.append(await probe(self.port, ONE))
            for what, connections, kind in GREEDY:
                async with self._neighbour(connections, kind):
                    beside[f"{connections} {what}"].append(await probe(self.port, ONE))
        self.rows.append(
            ("one owner's requests, alone", f"p50 {_ms(_typical(alone, 50))}, p99 {_ms(_typical(alone, 99))}", "")
        )
        for what, rounds in beside.items():
            ratio = _typical(rounds, 99) / _typical(alone, 99)
            figures = f"p50 {_ms(_typical(rounds, 50))}, p99 {_ms(_typical(rounds, 99))}, {ratio:.1f} times"
            self.rows.append((f"the same beside another owner's {what}", figures, "p99 < 2 times"))

    @asynccontextmanager
    async def _neighbour(self, connections: int, kind: tuple[str, ...]) -> AsyncIterator[None]:
        """Another owner at full speed."""
        ready = self.agents.with_name("ready")
        handed = handed_beside(self.agents)
        what = (str(handed), str(ready), str(self.port), str(connections), *kind)
        argv = (sys.executable, "-m", "bench.relay_neighbour", *what)
        neighbour = self.programs.start(argv, "neighbour", cores=self.programs.cores.load, env=_environment())
        await neighbour.until_listening(ready)
        yield
        await neighbour.child.stop()
        for each in (handed, ready):
            each.unlink()


def _tree(pid: int) -> list[int]:
    """The process and all below it: the worker is a child of what was started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(below for child in children for below in _tree(int(child)))]


async def end_all(clients: list[Client]) -> None:
    for client in clients:
        client.transport.abort()
    await asyncio.sleep(1)


def _percentile(times: list[int], percent: int) -> int:
    return sorted(times)[len(times) * percent // 100]


def _ms(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e6:.2f} ms"


def _typical(rounds: list[list[int]], percent: int) -> float:
    """The median of the rounds' percentiles."""
    return statistics.median(_percentile(times, percent) for times in rounds)


def handed_beside(agents: Path) -> Path:
    """Where connections to the other owner's agents go."""
    return agents.with_name("handed")


def _environment() -> dict[str, str]:
    return {**child_environment(), "PYTHONPATH": str(ROOT)}


async def start(programs: Programs) -> Bench:
    directory = programs.private_dir("relay")
    tailscaled = programs.private_dir("agents") / "tailscaled.sock"
    argv = (sys.executable, "-m", "bench.relay_agents", tailscaled, handed_beside(tailscaled))
    agents = programs.start(argv, "agents", cores=programs.cores.upstream, env=_environment())
    await agents.until_listening(tailscaled)
    save_table(directory)
    port = free_port()
    settings = {
        "tailscaled_socket": str(tailscaled),
        "access_log": "0",
        **dict.fromkeys(("agent_streams", "owner_streams", "connections_per_address", "headless_per_address"), "50000"),
    }
    (no_config := directory / "none.toml").touch()
    environment = child_environment(config=no_config)
    environment |= {f"ELIZACLOUD_{name.upper()}": value for name, value in settings.items()}
    relay_argv = (sys.executable, "-m", "elizacloud", "relay", "--data-dir", directory, "--port", str(port))
    relay = programs.start(relay_argv, "relay", cores=programs.cores.relay, env=environment)
    await relay.until_listening(port)
    return Bench(programs, tailscaled, port, relay.child.pid)


def save_table(directory: Path) -> None:
    settings = Settings(data_dir=directory)
    data = open_data_dir(settings)
    upstreams = tuple(
        Upstream(
            tenant.agent_id,
            f"owner{tenant.number}",
            1,
            1,
            DEFAULT_CELL_ID,
            str(tenant.number),
            tenant.ip,
            SecretStr("eca_b"),
        )
        for tenant in TENANTS
    )
    tokens = tuple(
        KnownToken(tenant.token[3:15], token_sha256(tenant.token), f"owner{tenant.number}", frozenset({Scope.OWNER}))
        for tenant in TENANTS
    )
    snapshot = Snapshot(epoch="bench", revision=1, upstreams=upstreams, agents=(), tokens=tokens)
    SnapshotFile(data.relay / "upstreams.sealed", Cipher(data.secret_key(settings))).save(snapshot, time.time())


async def measure(sockets: int, streams: int, *, pinned: bool) -> list[tuple[str, str, str]]:
    async with AsyncExitStack() as stack:
        programs = await stack.enter_async_context(Programs(choose_cores(os.sched_getaffinity(0), pinned=pinned)))
        bench = await start(programs)
        steps: tuple[Callable[[], Awaitable[None]], ...] = (
            lambda: bench.idle_sockets(sockets),  # first: else memory that others left free would be counted as none
            lambda: bench.streams(streams),
            bench.fairness,
        )
        for step in steps:
            await step()
        return bench.rows


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--sockets", type=int, default=10_000)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--unpinned", action="store_true", help="let every process use every core")
    options = parser.parse_args()
    sockets = min(options.sockets, (raise_file_limit() - _SPARE_FILES) // 2)  # the worker has two files for each
    rows = uvloop.run(measure(sockets, options.streams, pinned=not options.unpinned))
    head = ("what", "measured", "target")
    show(f"one relay worker ({facts()})", head, rows)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(f"# Many connections to one relay worker\n\n{facts()}\n\n{markdown(head, rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
