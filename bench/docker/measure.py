"""What is measured of agents in containers, in one run: ours, the bare script and the least by turns, on a cloud of their own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from aiodocker import Docker
from pydantic import SecretStr
from scripts.cloud import running_cloud
from tests.docker_engine import AGENT_IMAGE, EMBEDDED_IMAGE, SIDECAR_IMAGE, DockerEngine, lift_filters

from bench.docker.bare import Least, Script
from elizacloud.client import Client
from elizacloud.headscale.client import HeadscaleClient
from elizacloud.runtime.docker.labels import Role, name_of
from elizacloud.states import State

WITHIN_SECONDS = 120.0
WAKE_LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class Plan:
    rounds: int = 20
    at_once: int = 20
    pauses: int = 20
    stops: int = 50
    paused_seconds: float = 60.0


@dataclass
class Measured:
    server: str = ""
    engine: str = ""
    ours_seconds: list[float] = field(default_factory=list)
    same_image_seconds: list[float] = field(default_factory=list)
    """Of agents in the image that the bare script runs, which joins by itself: one container, where a sidecar makes it two."""
    script_seconds: list[float] = field(default_factory=list)
    """Empty where there is no docker command."""
    least_seconds: list[float] = field(default_factory=list)
    ours_at_once_seconds: float = 0.0
    same_image_at_once_seconds: float = 0.0
    script_at_once_seconds: float = 0.0
    least_at_once_seconds: float = 0.0
    from_pause_seconds: list[float] = field(default_factory=list)
    from_stop_seconds: list[float] = field(default_factory=list)
    tailscaled_rss_bytes: int = 0
    paused_cpu_seconds: float = 0.0
    paused_for_seconds: float = 0.0
    sidecar_image_bytes: int = 0


async def measure(engine: DockerEngine, plan: Plan) -> Measured:
    """On the first Headscale that ELIZACLOUD_HEADSCALE_BIN names, else on whatever `up` takes."""
    measured = Measured(engine=f"Docker {engine.get('/version')['Version']}")
    measured.sidecar_image_bytes = engine.get(f"/images/{SIDECAR_IMAGE}/json")["Size"]
    headscale_setting = os.environ.get("ELIZACLOUD_HEADSCALE_BIN", "auto").split(":")[0]
    directory = Path(tempfile.mkdtemp(prefix="ec-bench-", dir="/tmp"))
    networks = engine.names("networks")
    try:
        with _settings(engine):
            async with running_cloud(directory, headscale=headscale_setting) as running:
                server = running["headscale"]
                measured.server = f"{server['kind']} {server['version']}"
                key = SecretStr((directory / "data" / "control-server" / "api.key").read_text().strip())
                run_file = json.loads((directory / "data" / "run.json").read_text())
                headscale = HeadscaleClient(server["url"], key)
                async with (
                    Docker(engine.url) as docker,
                    Client(running["url"], SecretStr(running["apiToken"])) as client,
                ):
                    relay = Path(run_file["sockets"]["tailscaled"])
                    same = (docker, headscale, server["url"], EMBEDDED_IMAGE, relay, "bridge")
                    program = shutil.which("docker")
                    script = None if program is None else Script(*same, program, engine.url)
                    try:
                        await _create(client, script, Least(*same), plan, measured)
                        await _wake(client, docker, plan, measured)
                    finally:
                        await headscale.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        await _remove_networks(engine, but=networks)
    return measured


async def _remove_networks(engine: DockerEngine, *, but: list[str]) -> None:
    """An installation keeps its bridge, with its packet filters, for as long as it lives."""
    async with Docker(engine.url) as docker:
        for name in engine.names("networks"):
            if name not in but:
                lift_filters(engine.bridge_of(name))
                await (await docker.networks.get(name)).delete()


async def _create(client: Client, script: Script | None, least: Least, plan: Plan, measured: Measured) -> None:
    await _forget(client, [(await _created(client, "first"))[1]])  # which makes the network
    for number in range(plan.rounds):
        for image, into in ((None, measured.ours_seconds), (EMBEDDED_IMAGE, measured.same_image_seconds)):
            seconds, agent_id = await _created(client, f"bench-{number}", image)
            into.append(seconds)
            await _forget(client, [agent_id])
        for bare, into in ((script, measured.script_seconds), (least, measured.least_seconds)):
            if bare is not None:
                seconds, container_id = await bare.create()
                into.append(seconds)
                await bare.remove(container_id)
    measured.ours_at_once_seconds = await _at_once(client, plan.at_once, None)
    measured.same_image_at_once_seconds = await _at_once(client, plan.at_once, EMBEDDED_IMAGE)
    if script is not None:
        measured.script_at_once_seconds = await _bare_at_once(script, plan.at_once)
    measured.least_at_once_seconds = await _bare_at_once(least, plan.at_once)


async def _bare_at_once(bare: Least, number: int) -> float:
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        made = [tasks.create_task(bare.create()) for _ in range(number)]
    seconds = time.monotonic() - began
    for task in made:
        await bare.remove(task.result()[1])
    return seconds


async def _at_once(client: Client, number: int, image: str | None) -> float:
    """Seconds until all answer."""
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        ours = [tasks.create_task(_created(client, f"once-{each}", image)) for each in range(number)]
    seconds = time.monotonic() - began
    await _forget(client, [task.result()[1] for task in ours])
    return seconds


async def _created(client: Client, name: str, image: str | None = None) -> tuple[float, str]:
    """Seconds from the request that creates it to its answer through the relay."""
    began = time.monotonic()
    agent = await client.create_agent(name, wait_seconds=0, options={"image": image} if image else None)
    await client.wait_until(agent.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
    await _ask(client, agent.agent_id)
    return time.monotonic() - began, agent.agent_id


async def _wake(client: Client, docker: Docker, plan: Plan, measured: Measured) -> None:
    """By a request through the relay, which is answered as if the agent had been there."""
    _, idle_id = await _created(client, "idle")
    _, agent_id = await _created(client, "sleeper")
    for _ in range(plan.pauses):
        await client.pause_agent(agent_id)
        await client.wait_until(agent_id, {State.PAUSED}, within_seconds=WITHIN_SECONDS)
        measured.from_pause_seconds.append(await _woken(client, agent_id))
    for _ in range(plan.stops):
        await client.sleep_agent(agent_id)
        await client.wait_until(agent_id, {State.STOPPED}, within_seconds=WITHIN_SECONDS)
        measured.from_stop_seconds.append(await _woken(client, agent_id))
    await client.pause_agent(agent_id)
    await client.wait_until(agent_id, {State.PAUSED}, within_seconds=WITHIN_SECONDS)
    containers = [docker.containers.container(name_of((agent_id, 1), role)) for role in (Role.TAILNET, Role.AGENT)]
    before = [await _cpu_seconds(container) for container in containers]
    await asyncio.sleep(plan.paused_seconds)
    measured.paused_for_seconds = plan.paused_seconds
    measured.paused_cpu_seconds = sum([await _cpu_seconds(container) for container in containers]) - sum(before)
    sidecar = docker.containers.container(name_of((idle_id, 1), Role.TAILNET))
    measured.tailscaled_rss_bytes = _tailscaled_rss_bytes((await sidecar.show())["State"]["Pid"])
    await _forget(client, [agent_id, idle_id])


async def _woken(client: Client, agent_id: str) -> float:
    began = time.monotonic()
    await _ask(client, agent_id)
    seconds = time.monotonic() - began
    await client.wait_until(agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
    return seconds


async def _ask(client: Client, agent_id: str) -> None:
    # Polls of the health path wake nobody.
    async with client.relay("GET", agent_id, "/page") as answer:
        if answer.status != 200:
            raise RuntimeError(f"the agent answered {answer.status}")
        await answer.read()


async def _forget(client: Client, agent_ids: list[str]) -> None:
    for agent_id in agent_ids:
        await client.delete_agent(agent_id)
    for agent_id in agent_ids:
        with contextlib.suppress(Exception):
            await client.wait_until(agent_id, {State.TOMBSTONE, State.GONE}, within_seconds=WITHIN_SECONDS)


async def _cpu_seconds(container: object) -> float:
    (stats,) = await container.stats(stream=False)  # type: ignore[attr-defined]
    return float(stats["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9


def _tailscaled_rss_bytes(init_pid: int) -> int:
    """Of the sidecar's tailscaled, by the process that started it."""
    children = Path(f"/proc/{init_pid}/task/{init_pid}/children").read_text().split()
    for pid in children:
        if Path(f"/proc/{pid}/comm").read_text().strip() == "tailscaled":
            status = Path(f"/proc/{pid}/status").read_text()
            return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS"))
    raise RuntimeError("the sidecar runs no tailscaled")


@contextlib.contextmanager
def _settings(engine: DockerEngine) -> Iterator[None]:
    """Of the cloud that is measured."""
    chosen = {
        "ELIZACLOUD_RUNTIME": "docker",
        "ELIZACLOUD_DOCKER_URL": engine.url,
        "ELIZACLOUD_DOCKER_SIDECAR_IMAGE": SIDECAR_IMAGE,
        "ELIZACLOUD_DOCKER_AGENT_IMAGE": AGENT_IMAGE,
        "ELIZACLOUD_DOCKER_EMBEDDED_IMAGES": EMBEDDED_IMAGE,
    }
    before = {name: os.environ.get(name) for name in chosen}
    os.environ.update(chosen)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
