"""Real tailscaleds on a real control server: joining, the relay's netmap, and dialling an agent through it."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from pydantic import SecretStr

from elizacloud.errors import Refused, TailnetUnavailable
from elizacloud.headscale.bootstrap import ensure_policy
from elizacloud.model import AGENT_PORT, TAG_AGENT, TAG_RELAY, agent_tag, new_agent_id
from elizacloud.processes import Child, LogFile, spawn
from elizacloud.tailnet import (
    Joined,
    JoinPrefs,
    KeyRefused,
    LocalApi,
    NetmapWatcher,
    Tailscaled,
    dial,
    find_path,
    join,
    mismatch,
)
from elizacloud.tailnet.tailscaled import udp_port_of
from elizacloud.upstreams import Upstream
from tests.contract.headscale_servers import RealRig, find_tailscaled, parameters, rig_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count()


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=parameters()[1:])
async def server(request: pytest.FixtureRequest) -> AsyncIterator[RealRig]:
    async with rig_of(request.param) as rig:
        assert isinstance(rig, RealRig)
        await ensure_policy(rig.headscale)
        yield rig


@pytest.fixture(autouse=True)
def _counted(server: RealRig, record_property: Callable[[str, object], None]) -> None:
    record_property("control_server", server.name)


class Node:
    """One tailscaled with a directory of its own."""

    def __init__(self, directory: Path, binary: Path, join_url: str) -> None:
        state = directory / "state"
        state.mkdir()
        self.daemon = Tailscaled(binary, state, directory / "run" / "t.sock", join_url, udp_port_of(state))
        self.api = LocalApi(self.daemon.socket)
        self.prefs = JoinPrefs(join_url, f"machine-{next(_numbers)}")
        self._log = LogFile(directory / "log")
        self._child: Child | None = None

    def start(self) -> None:
        self.daemon.prepare()
        self._child = spawn(self.daemon.argv(), name="tailscaled", env=self.daemon.environment(), log=self._log.write)

    async def join(self, key: SecretStr | None, *, serving: str = "") -> Joined:
        async def publish(_node: Joined) -> None:
            if serving:
                await self.api.set_serve(AGENT_PORT, serving)

        return await join(self.api, self.prefs, key, within_seconds=20, on_netmap=publish)

    async def stop(self) -> None:
        if self._child is not None:
            await self._child.stop()
        self._child = None

    async def close(self) -> None:
        await self.api.close()
        await self.stop()
        self._log.close()


@pytest_asyncio.fixture(loop_scope="module")
async def nodes(server: RealRig) -> AsyncIterator[Callable[[], Node]]:
    binary = find_tailscaled()
    assert binary is not None
    made: list[Node] = []

    def new() -> Node:
        home = Path(directory, str(len(made)))
        home.mkdir()
        made.append(Node(home, binary, server.server.join_url))
        made[-1].start()
        return made[-1]

    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as directory:
        yield new
        for node in reversed(made):
            await node.close()


async def key(server: RealRig, *tags: str, lifetime_seconds: float = 60) -> SecretStr:
    minted = await server.headscale.create_preauth_key(tags=tags or (TAG_AGENT,), lifetime_seconds=lifetime_seconds)
    return minted.value


async def test_a_node_keeps_its_identity_over_a_restart_and_needs_no_key_then(
    server: RealRig, nodes: Callable[[], Node]
) -> None:
    node = nodes()
    first = await node.join(await key(server))
    assert first.ipv4
    listed = await server.headscale.get_node(first.node_id)
    assert listed is not None
    assert (listed.ipv4, listed.name) == (first.ipv4, node.prefs.hostname)

    await node.stop()
    node.start()

    assert await node.join(None) == first


async def test_joining_twice_is_harmless(server: RealRig, nodes: Callable[[], Node]) -> None:
    node = nodes()
    first = await node.join(await key(server))

    assert await node.join(None) == first
    assert await node.join(SecretStr("another key, not looked at")) == first


@pytest.mark.parametrize("dead", ["used", "expired", "unknown", "nonsense"])
async def test_a_dead_key_is_refused(server: RealRig, nodes: Callable[[], Node], dead: str) -> None:
    value = SecretStr("nonsense")
    if dead == "used":
        value = await key(server)
        await nodes().join(value)
    elif dead == "expired":
        minted = await server.headscale.create_preauth_key(tags=(TAG_AGENT,), lifetime_seconds=60)
        await server.headscale.expire_preauth_key(minted.id)
        value = minted.value
    elif dead == "unknown":
        good = (await key(server)).get_secret_value()
        value = SecretStr(good[:-6] + "".join(reversed(good[-6:])) + "x")

    with pytest.raises(KeyRefused):
        await nodes().join(value)


async def test_a_server_that_does_not_answer_is_no_dead_key(server: RealRig, nodes: Callable[[], Node]) -> None:
    node = nodes()
    lost = JoinPrefs("http://127.0.0.1:1", "machine-lost")

    with pytest.raises(TailnetUnavailable, match="refused"):
        await join(node.api, lost, await key(server), within_seconds=1.5)


async def test_a_node_that_was_deleted_needs_a_new_key_and_gets_a_node_key_of_its_own(
    server: RealRig, nodes: Callable[[], Node]
) -> None:
    node = nodes()
    first = await node.join(await key(server))
    before = await server.headscale.get_node(first.node_id)
    await node.stop()
    await server.headscale.delete_node(first.node_id)

    node.start()
    with pytest.raises(KeyRefused):
        await node.join(None)

    second = await node.join(await key(server))
    after = await server.headscale.get_node(second.node_id)
    assert before is not None
    assert after is not None
    assert second.node_id != first.node_id
    assert after.node_key != before.node_key, "peers may never find a node key that was another node's"
    assert after.machine_key == before.machine_key


class Agent:
    """Answers each line with itself, on a unix socket."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._echo, self.socket)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
            self.socket.unlink()

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()


@asynccontextmanager
async def following(api: LocalApi) -> AsyncIterator[NetmapWatcher]:
    watcher = NetmapWatcher(api)
    task = asyncio.create_task(watcher.run())
    try:
        await watcher.until_known(within_seconds=10)
        yield watcher
    finally:
        task.cancel()
        await asyncio.wait([task])


async def until(watcher: NetmapWatcher, condition: Callable[[], bool]) -> None:
    """Return when the condition holds; looked at after each change of the netmap."""
    changed = asyncio.Event()
    watcher.on_change(lambda _changes: changed.set())
    async with asyncio.timeout(20):
        while not condition():
            await changed.wait()
            changed.clear()


async def test_a_relay_sees_an_agent_come_dials_it_and_sees_it_go(server: RealRig, nodes: Callable[[], Node]) -> None:
    agent_id = new_agent_id()
    relay, node = nodes(), nodes()
    own = await relay.join(await key(server, TAG_RELAY))
    agent = Agent(node.daemon.socket.parent / "a.sock")
    await agent.listen()
    async with following(relay.api) as watcher:
        joined = await node.join(await key(server, TAG_AGENT, agent_tag(agent_id)), serving=f"unix:{agent.socket}")
        assert joined.ipv4
        upstream = Upstream(agent_id, "owner", 1, 1, "cell", joined.node_id, joined.ipv4, SecretStr("token"))
        await until(watcher, lambda: mismatch(watcher.netmap, upstream) is None)

        await find_path(relay.api, joined.ipv4, within_seconds=20)
        reader, writer = await dial(relay.daemon.socket, joined.ipv4, AGENT_PORT, within_seconds=20)
        writer.write(b"hello\n")
        async with asyncio.timeout(20):
            assert await reader.readline() == b"hello\n"
        writer.close()

        await agent.close()
        reader, writer = await dial(relay.daemon.socket, joined.ipv4, AGENT_PORT, within_seconds=20)
        async with asyncio.timeout(20):
            assert await reader.read() == b"", "an agent that is not there is an end of file"
        writer.close()

        assert await relay.api.ping(joined.ipv4) >= 0
        assert joined.ipv4 in await relay.api.peer_ips()
        assert own.ipv4
        assert watcher.netmap.peer_at(own.ipv4) is None, "the relay's own address leads to its own loopback"
        with pytest.raises(Refused) as refused:
            await dial(relay.daemon.socket, "100.127.255.254", AGENT_PORT, within_seconds=20)
        assert refused.value.reason == "not_a_peer"

        await node.stop()
        await server.headscale.delete_node(joined.node_id)
        await until(watcher, lambda: watcher.netmap.peer(joined.node_id) is None)
        assert mismatch(watcher.netmap, upstream)
