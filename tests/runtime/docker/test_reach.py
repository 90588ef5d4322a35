"""Who reaches an agent and what it reaches, tried on a real engine with the packet filters set: the reach matrix."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import pytest_asyncio
from aiodocker import Docker
from bench.netns import new_namespace

from elizacloud.beside import beside
from elizacloud.errors import Refused, TailnetUnavailable
from elizacloud.headscale.bootstrap import ensure_policy
from elizacloud.model import AGENT_PORT, AgentSpec
from elizacloud.runtime.docker.labels import Role, name_of, network_name
from elizacloud.runtime.protocol import InstanceSpec
from elizacloud.tailnet import dial
from tests.contract.docker_runtime import EMBEDDED, DockerRig, docker_rig
from tests.contract.headscale_servers import RealMachine, RealRig, parameters, rig_of
from tests.contract.runtimes import secrets
from tests.docker_engine import AGENT_IMAGE, ROOT_AGENT_IMAGE, DockerEngine, filters_of, lift_filters
from tests.runtime.tailnet import WITHIN_SECONDS, address_of, agent_on, ask, key_for, way_to
from tests.runtime.tailnet import _counted as _counted
from tests.runtime.tailnet import relay as relay

pytestmark = pytest.mark.asyncio(loop_scope="module")

OK = "HTTP/1.1 200 OK"
OTHER_PORT = 3000
IN_VAIN_SECONDS = 1
LISTENS_EVERYWHERE = (
    "/bin/sh",
    "-c",
    f"httpd -p 0.0.0.0:{OTHER_PORT} -h /www; exec httpd -f -p 0.0.0.0:{AGENT_PORT} -h /www",
)
METADATA, TAILNET, ELSEWHERE = "169.254.169.254", "100.100.100.200", "192.0.2.7"
_HOST_END = "192.0.2.1"


@pytest.fixture(scope="module")
def gateway(docker_engine: DockerEngine) -> str:
    return docker_engine.gateway


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=parameters()[1:2])
async def server(request: pytest.FixtureRequest, gateway: str) -> AsyncIterator[RealRig]:
    async with rig_of(request.param, listen_host=gateway) as rig:
        assert isinstance(rig, RealRig)
        await ensure_policy(rig.headscale)
        yield rig


@dataclass
class Listening:
    """An agent that listens on every address it has, at two ports."""

    rig: DockerRig
    spec: InstanceSpec
    role: Role
    ip: str
    bridge_ip: str

    async def runs(self, *command: str) -> tuple[int, str]:
        """A command beside the agent, in its container: exit code, and what it printed."""
        key = (self.spec.labels.agent_id, self.spec.labels.generation)
        async with Docker(self.rig.engine.url) as docker:
            return await _run_in(docker, name_of(key, self.role), command)

    async def reaches(self, host: str, port: int, path: str = "/") -> bool:
        """Whether anything answers its HTTP there."""
        asking = f"printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' | timeout {IN_VAIN_SECONDS} nc {host} {port}"
        return "HTTP/1" in (await self.runs("/bin/sh", "-c", asking))[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["sidecar", "embedded"])
async def agents(
    request: pytest.FixtureRequest, server: RealRig, docker_engine: DockerEngine, report_listener: int, gateway: str
) -> AsyncIterator[tuple[Listening, Listening]]:
    """Two of one installation; the second one's image has root as its user."""
    embedded = request.param == "embedded"
    options = EMBEDDED if embedded else {}
    role = Role.WHOLE if embedded else Role.AGENT
    async with docker_rig(docker_engine, firewall=True, stun_port=server.server.stun_port, **options) as rig:
        with _filters_are_lifted(docker_engine):
            made = []
            for image in (None, None if embedded else ROOT_AGENT_IMAGE):
                of = agent_on(server, AgentSpec(image=image, command=LISTENS_EVERYWHERE))
                of = replace(of, report_url=f"http://{gateway}:{report_listener}")
                ref = await rig.runtime.create(of)
                await rig.runtime.start(ref, secrets(preauth_key=await key_for(server, of)))
                _node_id, ip = await address_of(server, of)
                network: Any = rig.shown(of.labels, role if embedded else Role.TAILNET)["NetworkSettings"]
                bridge_ip = network["Networks"][network_name("one")]["IPAddress"]
                made.append(Listening(rig, of, role, ip, bridge_ip))
            yield made[0], made[1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def report_listener(gateway: str) -> AsyncIterator[int]:
    async with _http_on(gateway) as port:
        yield port


async def test_it_is_reached_through_the_tailnet_by_a_relay_at_its_one_port(
    agents: tuple[Listening, Listening], relay: RealMachine
) -> None:
    for agent in agents:
        assert await ask(relay, agent.ip) == OK
        with pytest.raises((TailnetUnavailable, Refused)):
            await dial(relay.tailscaled.socket, agent.ip, OTHER_PORT, within_seconds=IN_VAIN_SECONDS)


async def test_the_filters_leave_a_direct_way_to_a_relay_on_the_same_host(
    agents: tuple[Listening, Listening], relay: RealMachine
) -> None:
    for agent in agents:
        assert await ask(relay, agent.ip) == OK
        async with asyncio.timeout(WITHIN_SECONDS):
            while await way_to(relay, agent.ip) != "direct":
                await relay.api.ping(agent.ip)


async def test_another_node_of_the_tailnet_does_not_reach_it(
    server: RealRig, agents: tuple[Listening, Listening], relay: RealMachine
) -> None:
    key = await server.headscale.create_preauth_key(tags=("tag:agent",), lifetime_seconds=60)
    other = await server.join(key, "another-agent")
    for port in (AGENT_PORT, OTHER_PORT):
        with pytest.raises((TailnetUnavailable, Refused)):
            await dial(other.tailscaled.socket, agents[0].ip, port, within_seconds=IN_VAIN_SECONDS)
    assert await ask(relay, agents[0].ip) == OK


async def test_nobody_reaches_it_on_its_bridge_though_it_listens_on_all_addresses(
    agents: tuple[Listening, Listening], docker_engine: DockerEngine, relay: RealMachine
) -> None:
    agent, neighbour = agents
    assert await ask(relay, agent.ip) == OK
    for port in (AGENT_PORT, OTHER_PORT):
        own, from_host, from_beside, from_elsewhere = await beside(
            agent.reaches(agent.bridge_ip, port),
            _reached_from_here(agent.bridge_ip, port),
            neighbour.reaches(agent.bridge_ip, port),
            _reached_from_another_network(docker_engine, agent.bridge_ip, port),
        )
        assert own, "it does not listen there: the rest would prove nothing"
        assert (from_host, from_beside, from_elsewhere) == (False, False, False)


async def test_of_its_host_it_reaches_only_the_control_server_and_the_report_listener(
    server: RealRig, agents: tuple[Listening, Listening], gateway: str, report_listener: int
) -> None:
    host, _, port = server.server.join_url.removeprefix("http://").rpartition(":")
    async with _http_on("0.0.0.0") as other_port:
        for agent in agents:
            assert await agent.reaches(host, int(port), "/key?v=1")
            assert await agent.reaches(gateway, report_listener)
            own_gateway = agent.bridge_ip.rpartition(".")[0] + ".1"
            in_vain = await beside(
                agent.reaches(gateway, other_port),
                agent.reaches(own_gateway, other_port),
                agent.reaches(own_gateway, int(port), "/key?v=1"),
            )
            assert in_vain == [False, False, False]


async def test_metadata_and_the_tailnet_by_way_of_the_host_are_out_of_reach(
    agents: tuple[Listening, Listening], docker_engine: DockerEngine
) -> None:
    with _machine_beyond():
        for agent in agents:
            assert await agent.reaches(ELSEWHERE, 80), "the rest would prove nothing"
            in_vain = await beside(*(agent.reaches(address, 80) for address in (METADATA, TAILNET)))
            assert in_vain == [False, False]
        # Docker by itself lets them through.
        assert await _reached_from_another_network(docker_engine, METADATA, 80)
        assert await _reached_from_another_network(docker_engine, TAILNET, 80)


async def test_there_is_no_way_around_by_ipv6(agents: tuple[Listening, Listening]) -> None:
    for agent in agents:
        _, addresses = await agent.runs("cat", "/proc/net/if_inet6")
        assert [line for line in addresses.splitlines() if not line.endswith(" lo")] == []


async def test_the_filters_are_set_anew_when_docker_was_away_and_stay_one_set(
    server: RealRig, agents: tuple[Listening, Listening]
) -> None:
    rig = agents[0].rig
    before = filters_of(_bridge_of(rig.engine))
    _empty(f"EC-OUT-{_bridge_of(rig.engine)}")
    rig.runtime._maker.docker_restarted()

    ref = await rig.runtime.create(agent_on(server, report_url=agents[0].spec.report_url))

    await rig.runtime.remove(ref, volume=True)
    assert filters_of(_bridge_of(rig.engine)) == before


async def _run_in(docker: Docker, container: str, command: tuple[str, ...]) -> tuple[int, str]:
    run = await docker.containers.container(container).exec(list(command))
    printed = b""
    async with asyncio.timeout(WITHIN_SECONDS):
        async with run.start(detach=False) as stream:
            while (message := await stream.read_out()) is not None:
                printed += message.data
        return (await run.inspect())["ExitCode"], printed.decode(errors="replace")


async def _reached_from_here(host: str, port: int) -> bool:
    try:
        async with asyncio.timeout(IN_VAIN_SECONDS):
            _, writer = await asyncio.open_connection(host, port)
    except (TimeoutError, OSError):
        return False
    writer.close()
    return True


async def _reached_from_another_network(engine: DockerEngine, host: str, port: int) -> bool:
    """By a container that somebody else runs on this host."""
    async with Docker(engine.url) as docker:
        container = await docker.containers.create({"Image": AGENT_IMAGE, "Cmd": ["sleep", "86400"]})
        try:
            await container.start()
            asking = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | timeout {IN_VAIN_SECONDS} nc {host} {port}"
            return "HTTP/1" in (await _run_in(docker, str(container.id), ("/bin/sh", "-c", asking)))[1]
        finally:
            await container.delete(force=True)


@contextlib.asynccontextmanager
async def _http_on(host: str) -> AsyncIterator[int]:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.0 404 Not Found\r\n\r\n")
            await writer.drain()
        writer.close()

    listener = await asyncio.start_server(answer, host, 0)
    async with listener:
        yield listener.sockets[0].getsockname()[1]


@contextlib.contextmanager
def _machine_beyond() -> Iterator[None]:
    """One that the host has routes to, with an address of a cloud's metadata, of the tailnet, and of the wide world."""
    busybox = shutil.which("busybox")
    assert busybox is not None
    device = f"ec{os.getpid()}"
    with new_namespace() as beyond:
        _ip(
            "link",
            "add",
            device,
            "type",
            "veth",
            "peer",
            "inner",
            "netns",
            f"/proc/{os.getpid()}/fd/{beyond.descriptor}",
        )
        try:
            _ip("addr", "add", f"{_HOST_END}/32", "dev", device)
            _ip("link", "set", device, "up")
            beyond.run("ip", "link", "set", "inner", "up")
            for address in (METADATA, TAILNET, ELSEWHERE):
                _ip("route", "add", f"{address}/32", "dev", device, "src", _HOST_END)
                beyond.run("ip", "addr", "add", f"{address}/32", "dev", "inner")
            beyond.run("ip", "route", "add", "default", "dev", "inner")
            with beyond.entered():
                serving = subprocess.Popen([busybox, "httpd", "-f", "-p", "80", "-h", "/tmp"])
            try:
                yield
            finally:
                serving.kill()
                serving.wait()
        finally:
            _ip("link", "del", device)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def _bridge_of(engine: DockerEngine) -> str:
    return engine.bridge_of(network_name("one"))


def _empty(chain: str) -> None:
    subprocess.run(["iptables", "-F", chain], check=True)


@contextlib.contextmanager
def _filters_are_lifted(engine: DockerEngine) -> Iterator[None]:
    try:
        yield
    finally:
        lift_filters(_bridge_of(engine))
