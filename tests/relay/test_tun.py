"""TUN mode on a real tailscaled in a network of its own: what is reached, and that nothing leaves by the other way out."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import secrets
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from bench.netns import INSIDE_IP, OUTSIDE_IP, Namespace, namespace_with_a_way_out, why_not
from pydantic import SecretStr

from elizacloud.errors import Refused, TailnetUnavailable, Unavailable
from elizacloud.headscale.bootstrap import ensure_policy
from elizacloud.headscale.remembered import Binary, Kind
from elizacloud.model import AGENT_PORT, TAG_AGENT, TAG_RELAY, agent_tag, new_agent_id
from elizacloud.relay.dialling.dial import TcpDialer
from elizacloud.relay.metrics import Metrics
from elizacloud.relay.reach import Reach
from elizacloud.relay.unreachable import Unroutable
from elizacloud.relay.upstream import UpstreamConnection
from elizacloud.tailnet import NetmapWatcher, Tailscaled, blackhole, find_path, tunnel
from elizacloud.tailnet.localapi import LocalApi
from elizacloud.tailnet.netmap import PeerChange
from elizacloud.tailnet.tailscaled import udp_port_of
from elizacloud.upstreams import Upstream, UpstreamTable
from tests.contract.headscale_servers import RealMachine, RealRig, rig_of

WITHIN_SECONDS = 20
UNKNOWN = ("100.127.255.254", "fd7a:115c:a1e0:ffff::1")


class Wire:
    """What comes out of the namespace by its ordinary way out."""

    def __init__(self, inside: Namespace, outside: Namespace) -> None:
        self._inside = inside
        with outside.entered():
            self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))  # every protocol
            self._tap.bind(("outside", 0))
            self._tap.settimeout(WITHIN_SECONDS)

    def tailnet_packets(self) -> list[str]:
        """Where packets for tailnet addresses went to, of all that came until now."""
        last = secrets.token_bytes(16)
        with self._inside.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as speaking:
            speaking.sendto(last, (OUTSIDE_IP, 9))
        found = []
        while last not in (frame := self._tap.recv(65536)):
            if frame[12:14] == b"\x08\x00":
                found.append(ipaddress.ip_address(frame[30:34]))
            elif frame[12:14] == b"\x86\xdd":
                found.append(ipaddress.ip_address(frame[38:54]))
        return [str(ip) for ip in found if any(ip in prefix for prefix in blackhole.PREFIXES)]

    def close(self) -> None:
        self._tap.close()


@pytest.fixture
def namespaces() -> Iterator[tuple[Namespace, Namespace]]:
    if reason := why_not():
        pytest.skip(reason)
    with namespace_with_a_way_out() as (inside, outside), inside.entered():
        yield inside, outside


@pytest.fixture
def wire(namespaces: tuple[Namespace, Namespace]) -> Iterator[Wire]:
    made = Wire(*namespaces)
    yield made
    made.close()


@dataclass
class Tailnet:
    """A relay with a TUN device, and an agent that answers each line with itself."""

    rig: RealRig
    relay: RealMachine
    watcher: NetmapWatcher
    dialer: TcpDialer
    agent_id: str
    agent: RealMachine
    lines: Path

    async def until(self, condition: Callable[[], bool]) -> None:
        """Return when it holds; looked at after each change of the netmap."""
        changed = asyncio.Event()
        self.watcher.on_change(lambda _changes: changed.set())
        async with asyncio.timeout(WITHIN_SECONDS):
            while not condition():
                await changed.wait()
                changed.clear()

    async def joined(self, agent_id: str) -> RealMachine:
        """Another agent, on the same lines, that the relay sees and has a path to."""
        key = await self.rig.headscale.create_preauth_key(tags=(TAG_AGENT, agent_tag(agent_id)), lifetime_seconds=60)
        machine = await self.rig.join(key, "agent")
        await machine.api.set_serve(AGENT_PORT, f"unix:{self.lines}")
        await self.until(lambda: self.watcher.netmap.peer_at(machine.ipv4) is not None)
        await self.path_to(machine)
        return machine

    async def path_to(self, machine: RealMachine) -> None:
        await find_path(machine.api, self.relay.ipv4, within_seconds=WITHIN_SECONDS)
        await find_path(self.relay.api, machine.ipv4, within_seconds=WITHIN_SECONDS)

    def upstream(self) -> Upstream:
        agent = self.agent
        return Upstream(self.agent_id, "owner", 1, 1, "cell", agent.node_id, agent.ipv4, SecretStr("token"))


@pytest_asyncio.fixture
async def tailnet(namespaces: tuple[Namespace, Namespace]) -> AsyncIterator[Tailnet]:
    devcontrol = Binary(Kind.DEVCONTROL, Path(os.environ["ELIZACLOUD_DEVCONTROL_BIN"]), "development")
    async with rig_of(devcontrol) as rig:
        assert isinstance(rig, RealRig)
        await ensure_policy(rig.headscale)
        with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as directory:
            async with _relay(rig, Path(directory)) as tailnet:
                yield tailnet


@asynccontextmanager
async def _relay(rig: RealRig, home: Path) -> AsyncIterator[Tailnet]:
    binary = Path(os.environ["ELIZACLOUD_TAILSCALED_BIN"])
    home.chmod(0o700)
    daemon = Tailscaled(binary, home, home / "s", rig.server.join_url, udp_port_of(home), tun=tunnel.DEVICE)
    relay = RealMachine(daemon, "relay")
    blackhole.install()
    try:
        await relay.start((await rig.headscale.create_preauth_key(tags=(TAG_RELAY,), lifetime_seconds=60)).value)
        # Not the machine's own client, which is closed when the machine is stopped.
        following_api = LocalApi(daemon.socket)
        watcher = NetmapWatcher(following_api)
        dialer = TcpDialer(tunnel.Tunnel(watcher.netmap))
        lines = await asyncio.start_unix_server(_echo, home / "lines")
        async with asyncio.TaskGroup() as tasks:
            following = tasks.create_task(watcher.run(), name="netmap")
            await watcher.until_known(within_seconds=WITHIN_SECONDS)
            tailnet = Tailnet(rig, relay, watcher, dialer, new_agent_id(), relay, home / "lines")
            tailnet.agent = await tailnet.joined(tailnet.agent_id)
            with tunnel.device_news(dialer.device_changed):
                yield tailnet
            following.cancel()
        await following_api.close()
        lines.close()
        await rig.stop_machines()
    finally:
        await relay.stop()
        relay.close()


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while line := await reader.readline():
            writer.write(line)
    finally:
        writer.close()


class Answer:
    """Takes what comes on a connection, as a request's exchange would."""

    def __init__(self, connection: UpstreamConnection) -> None:
        self.lost = asyncio.Event()
        connection.begin(self, b"GET", upgrade=True)  # type: ignore[arg-type]

    def upstream_lost(self, reason: str) -> None:
        self.lost.set()

    def upstream_writable(self, writable: bool) -> None: ...


async def test_an_agent_is_reached_by_a_socket_of_the_device(tailnet: Tailnet) -> None:
    connection = await tailnet.dialer(tailnet.agent.ipv4, AGENT_PORT)

    own = connection._transport.get_extra_info("socket")
    assert own.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0").decode() == tunnel.DEVICE
    assert own.getsockname()[0] == tailnet.relay.ipv4
    connection.abort()


async def test_a_port_that_the_policy_closes_is_no_connection(tailnet: Tailnet) -> None:
    with pytest.raises((TimeoutError, Unavailable, Refused)):
        async with asyncio.timeout(1):
            await tailnet.dialer(tailnet.agent.ipv4, AGENT_PORT + 1)


@pytest.mark.parametrize("ip", UNKNOWN)
async def test_an_unknown_address_is_sought_nowhere(tailnet: Tailnet, wire: Wire, ip: str) -> None:
    with pytest.raises((TimeoutError, Unavailable)):
        async with asyncio.timeout(1):
            await tailnet.dialer(ip, AGENT_PORT)

    assert wire.tailnet_packets() == []


async def test_others_on_this_machine_do_not_leak_either_and_would_without_the_blackhole(
    tailnet: Tailnet, wire: Wire
) -> None:
    def connect() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as plain:
            plain.settimeout(0.2)
            plain.connect((UNKNOWN[0], AGENT_PORT))

    with pytest.raises(OSError, match="Invalid argument"):
        connect()
    assert wire.tailnet_packets() == []

    blackhole.remove()
    with pytest.raises(OSError):
        connect()
    assert UNKNOWN[0] in wire.tailnet_packets()


async def test_even_without_the_blackhole_a_dial_stays_in_the_tunnel(tailnet: Tailnet, wire: Wire) -> None:
    blackhole.remove()

    with pytest.raises((TimeoutError, Unavailable)):
        async with asyncio.timeout(1):
            await tailnet.dialer(UNKNOWN[0], AGENT_PORT)

    assert wire.tailnet_packets() == []


async def test_without_tailscaled_nothing_is_dialled_and_what_was_open_ends(
    tailnet: Tailnet, wire: Wire, namespaces: tuple[Namespace, Namespace]
) -> None:
    _, outside = namespaces
    outside.run("ip", "addr", "add", f"{tailnet.agent.ipv4}/32", "dev", "lo")  # who would answer if it leaked
    with outside.entered():
        impostor = socket.create_server((tailnet.agent.ipv4, AGENT_PORT))
        impostor.setblocking(False)
    connection = await tailnet.dialer(tailnet.agent.ipv4, AGENT_PORT)
    answer = Answer(connection)

    await tailnet.relay.stop()
    async with asyncio.timeout(WITHIN_SECONDS):
        await answer.lost.wait()
    with pytest.raises(TailnetUnavailable):
        await tailnet.dialer(tailnet.agent.ipv4, AGENT_PORT)

    assert wire.tailnet_packets() == []
    with impostor, pytest.raises(BlockingIOError):
        impostor.accept()


async def test_when_tailscaled_is_back_agents_are_reached_again(tailnet: Tailnet, wire: Wire) -> None:
    await tailnet.dialer(tailnet.agent.ipv4, AGENT_PORT)
    await tailnet.relay.stop()

    await tailnet.relay.start()
    blackhole.check()
    await tailnet.until(lambda: tailnet.watcher.netmap.peer_at(tailnet.agent.ipv4) is not None)
    await tailnet.path_to(tailnet.agent)
    async with asyncio.timeout(WITHIN_SECONDS):
        connection = await tailnet.dialer(tailnet.agent.ipv4, AGENT_PORT)

    connection.abort()
    assert wire.tailnet_packets() == []


class Nobody:
    def tell_wake(self, agent_id: str, poll_gap_seconds: float | None = None) -> None: ...


async def test_an_address_handed_to_another_node_gets_no_byte(tailnet: Tailnet) -> None:
    upstream = tailnet.upstream()
    table = UpstreamTable(upstreams={upstream.agent_id: upstream})
    reach = Reach(
        table,
        tailnet.watcher.netmap,
        tailnet.dialer,
        Nobody(),
        Metrics(),
        dial_timeout_seconds=WITHIN_SECONDS,
        hold_seconds=1,
        dials_per_agent=4,
    )

    def changed(changes: tuple[PeerChange, ...]) -> None:
        reach.netmap_changed(changes)

    tailnet.watcher.on_change(changed)
    answer = Answer(await reach.connect(upstream))

    await tailnet.agent.stop()
    await tailnet.rig.headscale.delete_node(upstream.node_id)
    async with asyncio.timeout(WITHIN_SECONDS):
        await answer.lost.wait()
    await tailnet.rig.restart()
    stranger = await tailnet.joined(new_agent_id())
    assert stranger.ipv4 == upstream.ip
    (await tailnet.dialer(upstream.ip, AGENT_PORT)).abort()  # somebody answers there, as far as sockets can tell

    with pytest.raises(Unroutable):
        await reach.connect(upstream)
    assert reach.ready(upstream.agent_id) is None
    own = replace(upstream, ip=tailnet.relay.ipv4, node_id=tailnet.relay.node_id)
    with pytest.raises(Unroutable):
        await reach.dial(own)
    reach.close()


def test_a_machine_that_has_such_an_address_already_is_refused(namespaces: tuple[Namespace, Namespace]) -> None:
    inside, _ = namespaces
    tunnel.check_machine()
    inside.run("ip", "addr", "replace", "100.101.0.7/24", "dev", "lo")
    inside.run("ip", "addr", "del", "127.0.0.1/8", "dev", "lo")
    with pytest.raises(Exception, match=r"lo has 100\.101\.0\.7"):
        tunnel.check_machine()
    assert INSIDE_IP in inside.run("ip", "addr")
