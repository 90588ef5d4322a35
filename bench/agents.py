"""Create, reach and delete agents beside a bare script that does the least: mint a key, start tailscaled, `tailscale up`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr
from scripts.cloud import running_cloud

from elizacloud.binaries import Binaries, show_progress
from elizacloud.client import Client
from elizacloud.errors import NotFound
from elizacloud.headscale.client import HeadscaleClient
from elizacloud.model import TAG_AGENT
from elizacloud.processes import LogFile, spawn
from elizacloud.settings import load_settings
from elizacloud.states import State
from elizacloud.tailnet.tailscaled import Tailscaled, udp_port_of

JOIN_SECONDS = 60


@dataclass
class Measured:
    server: str = ""
    kind: str = ""
    create_seconds: list[float] = field(default_factory=list)
    bare_seconds: list[float] = field(default_factory=list)
    ready_seconds: list[float] = field(default_factory=list)
    join_seconds: list[float] = field(default_factory=list)
    request_seconds: list[float] = field(default_factory=list)
    delete_seconds: list[float] = field(default_factory=list)
    up_seconds: list[float] = field(default_factory=list)


async def measure(rounds: int) -> Measured:
    """On the first Headscale that ELIZACLOUD_HEADSCALE_BIN names, else on whatever `up` takes."""
    measured = Measured()
    headscale_setting = os.environ.get("ELIZACLOUD_HEADSCALE_BIN", "auto").split(":")[0]
    directory = Path(tempfile.mkdtemp(prefix="ec-bench-", dir="/tmp"))
    with show_progress() as progress:
        tailscaled = (await Binaries.from_settings(load_settings().settings, progress).tailscaled()).path
    try:
        async with running_cloud(directory, headscale=headscale_setting):
            pass
        for _ in range(3):
            began = time.monotonic()
            async with running_cloud(directory, headscale=headscale_setting):
                measured.up_seconds.append(time.monotonic() - began)
        async with running_cloud(directory, headscale=headscale_setting) as running:
            server = running["headscale"]
            measured.server, measured.kind = f"{server['kind']} {server['version']}", server["kind"]
            key = SecretStr((directory / "data" / "control-server" / "api.key").read_text().strip())
            headscale = HeadscaleClient(server["url"], key)
            async with Client(running["url"], SecretStr(running["apiToken"])) as client:
                for number in range(rounds):
                    await _one_agent(client, f"bench-{number}", measured)
                    measured.bare_seconds.append(await bare_join(headscale, tailscaled, server["url"], directory))
            await headscale.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return measured


async def _one_agent(client: Client, name: str, measured: Measured) -> None:
    began = time.monotonic()
    agent = await client.create_agent(name, wait_seconds=60)
    measured.create_seconds.append(time.monotonic() - began)
    await client.wait_until(agent.agent_id, {State.READY}, within_seconds=60)
    measured.ready_seconds.append(time.monotonic() - began)
    began = time.monotonic()
    async with client.relay("GET", agent.agent_id, "/api/health") as answer:
        await answer.read()
    measured.request_seconds.append(time.monotonic() - began)
    times = {event.state_to: event.at async for event in client.events(agent.agent_id, following=False)}
    measured.join_seconds.append((times["joined"] - times["started"]).total_seconds())
    began = time.monotonic()
    await client.delete_agent(agent.agent_id)
    with contextlib.suppress(NotFound):
        await client.wait_until(agent.agent_id, {State.GONE}, within_seconds=60)
    measured.delete_seconds.append(time.monotonic() - began)


async def bare_join(headscale: HeadscaleClient, binary: Path, url: str, directory: Path) -> float:
    """Seconds from nothing to a node on the tailnet, by the shortest script there is; the node is deleted after."""
    state = Path(tempfile.mkdtemp(dir=directory))
    socket = Path(tempfile.mkdtemp(prefix="ec-b", dir="/tmp")) / "s"
    began = time.monotonic()
    key = await headscale.create_preauth_key(tags=(TAG_AGENT,), lifetime_seconds=300)
    daemon = Tailscaled(binary=binary, state_dir=state, socket=socket, join_url=url, udp_port=udp_port_of(state))
    daemon.prepare()
    key_file = state / "key"
    key_file.write_text(key.value.get_secret_value())
    log = LogFile(directory / "bare.log")
    async with spawn(daemon.argv(), name="bare tailscaled", env=daemon.environment(), log=log.write) as child:
        # TS_BE_CLI makes the one binary of the minimal build the CLI.
        cli = spawn(
            [
                *(binary, f"--socket={socket}", "up", f"--login-server={url}", f"--auth-key=file:{key_file}"),
                *("--hostname=bare", "--accept-dns=false", "--timeout=60s"),
            ],
            name="tailscale up",
            env={**daemon.environment(), "TS_BE_CLI": "1"},
            log=log.write,
        )
        async with asyncio.timeout(JOIN_SECONDS):
            code = (await cli.wait()).code
        await cli.stop()
        seconds = time.monotonic() - began
        await child.stop()
    if code != 0:
        raise RuntimeError(f"tailscale up ended with {code}: {log.recent()}")
    log.close()
    node = next(node for node in await headscale.list_nodes() if node.preauth_key_id == key.id)
    await headscale.delete_node(node.id)
    await headscale.delete_preauth_key(key.id)
    shutil.rmtree(socket.parent)
    return seconds
