"""A real tailnet for the measurements: a control server, the agent's node before the upstream, the relay's node.

The control server is the Headscale that ELIZACLOUD_HEADSCALE_BIN names, else devcontrol. The nodes are unmodified
tailscaleds: the relay's shares the relay's core, as all that a relay needs is to fit on one; the agent's is on the other.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import SecretStr

from bench.relay.programs import Programs
from bench.relay.upstream import AGENT
from elizacloud.app.control_server import obtain
from elizacloud.binaries import Binaries, show_progress
from elizacloud.errors import Misconfigured
from elizacloud.headscale.bootstrap import bootstrap
from elizacloud.headscale.client import HeadscaleClient
from elizacloud.headscale.remembered import Binary
from elizacloud.headscale.server import SupervisedServer
from elizacloud.model import AGENT_PORT, TAG_AGENT, TAG_RELAY, agent_tag
from elizacloud.settings import Settings, load_settings
from elizacloud.tailnet import Joined, JoinPrefs, Tailscaled, find_path, join
from elizacloud.tailnet.localapi import LocalApi
from elizacloud.tailnet.tailscaled import udp_port_of

JOIN_SECONDS = 30
KEY_SECONDS = 600
USERSPACE = "userspace-networking"
AGENT_NODE, RELAY_NODE = "agent-node", "relay-node"


@dataclass(frozen=True, slots=True)
class Node:
    """A tailscaled on the tailnet."""

    socket: Path
    pid: int
    joined: Joined

    @property
    def ip(self) -> str:
        if self.joined.ipv4 is None:
            raise RuntimeError("the control server gave a node no IPv4 address")
        return self.joined.ipv4


class Tailnet:
    """What of it is running; made by `running_tailnet`."""

    def __init__(
        self, programs: Programs, headscale: HeadscaleClient, join_url: str, tailscaled: Path, says: str
    ) -> None:
        self.join_url = join_url
        self.says = says
        self._programs = programs
        self._headscale = headscale
        self._tailscaled = tailscaled

    async def key(self, *tags: str) -> str:
        """A single-use pre-auth key for a node with these tags."""
        minted = await self._headscale.create_preauth_key(tags=tags, lifetime_seconds=KEY_SECONDS)
        return minted.value.get_secret_value()

    async def agent(self, upstream_port: int) -> Node:
        """The agent's node, which hands what comes for the agent's port to the upstream."""
        with self._programs.outside():
            daemon, pid = self._start(AGENT_NODE, cores=self._programs.cores.upstream)
        async with self._joined(daemon, pid, AGENT_NODE, (TAG_AGENT, agent_tag(AGENT))) as (api, node):
            await api.set_serve(AGENT_PORT, f"127.0.0.1:{upstream_port}")
        return node

    async def relay(self, agent: Node, *, tun: str = USERSPACE) -> Node:
        """The relay's node, with a path to the agent's."""
        memory = Settings.model_fields["relay_tailscaled_memory"].default
        daemon, pid = self._start(RELAY_NODE, cores=self._programs.cores.relay, memory=memory, tun=tun)
        async with self._joined(daemon, pid, RELAY_NODE, (TAG_RELAY,)) as (api, node):
            await find_path(api, agent.ip, within_seconds=JOIN_SECONDS)
        return node

    def _start(
        self, name: str, *, cores: Sequence[int], memory: str = "", tun: str = USERSPACE
    ) -> tuple[Tailscaled, int]:
        directory = self._programs.private_dir(name)
        daemon = Tailscaled(
            binary=self._tailscaled,
            state_dir=directory,
            socket=directory / "socket" / "t.sock",
            join_url=self.join_url,
            udp_port=udp_port_of(directory),
            memory_limit=memory,
            tun=tun,
        )
        daemon.prepare()
        started = self._programs.start(daemon.argv(), name, cores=cores, env=daemon.environment())
        return daemon, started.child.pid

    @asynccontextmanager
    async def _joined(
        self, daemon: Tailscaled, pid: int, name: str, tags: tuple[str, ...]
    ) -> AsyncIterator[tuple[LocalApi, Node]]:
        api = LocalApi(daemon.socket)
        try:
            key = SecretStr(await self.key(*tags))
            joined = await join(api, JoinPrefs(self.join_url, name), key, within_seconds=JOIN_SECONDS)
            yield api, Node(daemon.socket, pid, joined)
        finally:
            await api.close()


@asynccontextmanager
async def running_tailnet(programs: Programs, *, listen_host: str = "127.0.0.1") -> AsyncIterator[Tailnet]:
    """A control server of this run alone; everything ends with `programs`."""
    named = os.environ.get("ELIZACLOUD_HEADSCALE_BIN", "").split(":")[0]
    settings = load_settings({"headscale": named or "devcontrol"}).settings
    directory = programs.private_dir("control-server")
    with show_progress() as progress:
        binary = await obtain(settings, directory, progress)
        tailscaled = await Binaries.from_settings(settings, progress).tailscaled()
    if not isinstance(binary, Binary):
        raise Misconfigured("cannot measure with somebody else's Headscale: name a binary in ELIZACLOUD_HEADSCALE_BIN")
    server = SupervisedServer(directory, binary, run_dir=programs.private_dir("control"), listen_host=listen_host)
    with programs.outside():
        server.prepare()
        command = server.serve_command()
        started = programs.start(command.argv, "control-server", cores=programs.cores.load, env=command.env)
    await server.wait_healthy(started.child, last_words=started.log.recent)
    headscale = await bootstrap(server)
    try:
        says = f"{binary.kind} {binary.version}, tailscaled {tailscaled.version}"
        yield Tailnet(programs, headscale, server.join_url, tailscaled.path, says)
    finally:
        await headscale.close()
