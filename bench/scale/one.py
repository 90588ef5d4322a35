"""One control plane with so many agents, in a process of its own, since memory is measured: prints what it found as JSON.

python -m bench.scale.one DATABASE_URL COUNT
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import aiohttp
import structlog
import uvicorn
import uvloop
from tests.agents.world import INSTALLATION, World
from tests.fakes.runtime import FakeRuntime
from tests.fakes.store import CELL, HOST

from bench.scale.crowd import OWNER, fill
from elizacloud.api.app import close_streams, create_app
from elizacloud.app.collector import spare_the_collector
from elizacloud.auth.credentials import Credentials
from elizacloud.model import utc_now
from elizacloud.store import Cipher, Store, new_secret_key

LISTS, CHANGES, SWEEPS = 300, 50, 5
PAGE = 100
CALM_SECONDS, CALM_SHARE = 2.0, 0.2
STEADY_SECONDS = 15.0
START_SECONDS = 180.0


@dataclass
class Found:
    agents: int
    calm_seconds: float = 0.0
    """From the start of the lifecycle until it is not busy any more: every agent was looked at once, and a sweep made."""
    memory_bytes: int = 0
    """What the control plane's process grew by since everything but the lifecycle and the API was there."""
    list_seconds: list[float] = field(default_factory=list)
    change_seconds: list[float] = field(default_factory=list)
    """From the request to stop an agent until the runtime is told to."""
    sweep_seconds: list[float] = field(default_factory=list)
    sweep_cpu_seconds: float = 0.0
    sweep_late_seconds: float = 0.0
    """The longest time that something else had to wait for its turn while a sweep went on."""
    steady_cpu: float = 0.0
    """Share of one core, when nothing is asked."""


async def measure(url: str, count: int) -> Found:
    found, cipher = Found(count), Cipher(new_secret_key())
    async with await Store.open(url, cipher) as store:
        await store.places.ensure_cell(CELL)
        await store.places.ensure_host(HOST)
        await store.installation.ensure(INSTALLATION)
        world = World(store, FakeRuntime(), clock=utc_now)
        await fill(store, cipher, world, count)
        before = _resident()
        async with _api(world) as call:
            began = time.monotonic()
            await world.lifecycle.prepare()
            await world.lifecycle.tell_relays()
            async with world.running():
                spare_the_collector()  # as `serve` does
                await _calm(began)
                found.calm_seconds = time.monotonic() - began - CALM_SECONDS
                await _lists(call, found)
                await _changes(call, world, found)
                await _sweeps(world, found)
                gc.collect()
                found.memory_bytes = _resident() - before
                cpu = time.process_time()
                await asyncio.sleep(STEADY_SECONDS)
                found.steady_cpu = (time.process_time() - cpu) / STEADY_SECONDS
    return found


Call = Callable[[str, str], "aiohttp.client._RequestContextManager"]


@asynccontextmanager
async def _api(world: World) -> AsyncIterator[Call]:
    """The API on a unix socket, as the control plane serves it."""
    credentials = Credentials(world.store, world.relays, world.settings, issuer="https://cloud.example")
    await credentials.prepare()
    token = (await credentials.tokens.issue(OWNER, "bench", by=None)).value.get_secret_value()
    app = create_app(world.lifecycle, credentials, world.store, world.settings)
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as directory:
        socket = str(Path(directory) / "api.sock")
        server = uvicorn.Server(uvicorn.Config(app, uds=socket, log_config=None, access_log=False, lifespan="off"))
        serving = asyncio.create_task(server._serve(), name="server")
        while not server.started:
            await asyncio.sleep(0.01)
        headers = {"Authorization": f"Bearer {token}"}
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket), headers=headers) as session:
            yield lambda method, path: session.request(method, f"http://api{path}")
        close_streams(app)
        server.should_exit = True
        await serving


async def _calm(began: float) -> None:
    while True:
        cpu = time.process_time()
        await asyncio.sleep(CALM_SECONDS)
        if time.process_time() - cpu < CALM_SECONDS * CALM_SHARE:
            return
        if time.monotonic() - began > START_SECONDS:
            raise RuntimeError(f"not calm after {START_SECONDS:.0f} s")


async def _lists(call: Call, found: Found) -> None:
    """Pages of 100, one after the other, through all of them and again."""
    cursor = ""
    for _ in range(LISTS):
        began = time.perf_counter()
        async with call("GET", f"/api/v1/agents?limit={PAGE}{cursor}") as answer:
            page = await answer.json()
        found.list_seconds.append(time.perf_counter() - began)
        assert len(page["items"]) == PAGE, page
        cursor = f"&cursor={page['next']}" if page["next"] else ""


async def _changes(call: Call, world: World, found: Found) -> None:
    runtime, told = world.runtime, asyncio.Event()
    stop = runtime.stop

    async def stopped(ref: str, *, grace_seconds: float) -> None:
        told.set()
        await stop(ref, grace_seconds=grace_seconds)

    runtime.stop = stopped  # type: ignore[method-assign]
    for ref in random.Random(1).sample(sorted(runtime._held), CHANGES):
        told.clear()
        began = time.perf_counter()
        async with call("POST", f"/api/v1/agents/{ref.partition('.')[0]}/stop") as answer:
            assert answer.status == 202, await answer.text()
        await told.wait()
        found.change_seconds.append(time.perf_counter() - began)


async def _sweeps(world: World, found: Found) -> None:
    late = 0.0

    async def tick() -> None:
        nonlocal late
        while True:
            began = time.perf_counter()
            await asyncio.sleep(0.005)
            late = max(late, time.perf_counter() - began - 0.005)

    ticking = asyncio.create_task(tick(), name="tick")
    cpu = time.process_time()
    for _ in range(SWEEPS):
        began = time.perf_counter()
        await world.lifecycle.sweeper.sweep()
        found.sweep_seconds.append(time.perf_counter() - began)
    ticking.cancel()
    found.sweep_cpu_seconds = (time.process_time() - cpu) / SWEEPS
    found.sweep_late_seconds = late


def _resident() -> int:
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100)[98]


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    print(json.dumps(asdict(uvloop.run(measure(sys.argv[1], int(sys.argv[2]))))))
