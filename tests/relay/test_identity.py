"""An address proves nothing: Headscale hands freed ones to other tenants. Each test fails when its check is taken out."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from pydantic import SecretStr

from elizacloud.relay import reach
from elizacloud.relay.limits import LimitSettings
from elizacloud.tailnet.netmap import Netmap
from elizacloud.upstreams import Upstream
from tests.relay.conftest import AGENT, IP, OTHER_AGENT, OWN_IP, Cloud, RawAgent, request, soon, until, upstream
from tests.relay.test_worker import problem

TAGS = ("tag:agent", f"tag:a-{AGENT}")
OTHER_TAGS = ("tag:agent", f"tag:a-{OTHER_AGENT}")


class Tenant(RawAgent):
    """Whoever has the address now. Not one byte may reach it."""

    got = b""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                self.got += data
        writer.close()


@pytest.mark.parametrize(
    "peers",
    [
        [("8", IP, OTHER_TAGS)],
        [("8", IP, TAGS)],
        [("7", IP, OTHER_TAGS)],
        [("7", IP, ("tag:agent",))],
    ],
    ids=[
        "another node and tag",
        "another node with the tag",
        "the node without its tag",
        "the node with no agent's tag",
    ],
)
async def test_nothing_is_sent_to_a_peer_that_is_not_the_agent(
    cloud: Cloud, peers: list[tuple[str, str, tuple[str, ...]]]
) -> None:
    tenant = Tenant()
    cloud.agent(tenant)
    cloud.peers(*peers)
    answer = await cloud.ask(request(method="POST", headers="Content-Length: 6\r\n", body=b"secret"))
    assert problem(answer.body) == (503, "agent_unroutable")
    assert cloud.tailscaled.dials == []
    assert cloud.metrics.identity_refused == 1


async def test_an_address_that_moves_while_a_pool_is_open(cloud: Cloud) -> None:
    """The connection ends in the step in which the change is seen, not when it has been idle for long enough."""
    agent, tenant = RawAgent(), Tenant()
    cloud.agent(agent)
    client = await cloud.client()
    assert (await client.ask(request("/before"))).status == 200
    (pool,) = cloud.worker._reach._pools.values()
    (connection,) = pool._all
    cloud.agent(tenant)
    cloud.peers(("8", IP, OTHER_TAGS))
    assert connection.closed
    await soon(agent.gone.wait())
    assert (await client.ask(request("/after"))).status == 503
    assert len(agent.heads) == 1
    assert tenant.connections == 0


async def test_a_pooled_connection_is_looked_at_for_every_request(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even if nobody told the pool."""
    agent = RawAgent()
    cloud.agent(agent)
    client = await cloud.client()
    assert (await client.ask(request("/before"))).status == 200
    monkeypatch.setattr(cloud.worker, "netmap_changed", lambda changes: None)
    cloud.peers(("8", IP, OTHER_TAGS))
    assert (await client.ask(request("/after"))).status == 503
    assert len(agent.heads) == 1


async def test_an_address_that_moves_during_a_dial(cloud: Cloud) -> None:
    tenant = Tenant()
    cloud.agent(tenant)
    cloud.tailscaled.hold.clear()
    client = await cloud.client()
    client.send(request())
    await soon(cloud.tailscaled.dialled.wait())
    cloud.peers(("8", IP, OTHER_TAGS))
    cloud.tailscaled.hold.set()
    assert problem((await soon(client.answer())).body) == (503, "agent_unroutable")
    assert tenant.got == b""


async def test_an_address_that_moves_away_and_back_during_a_dial(cloud: Cloud) -> None:
    """The connection may be to whoever had the address in between."""
    tenant = Tenant()
    cloud.agent(tenant)
    cloud.tailscaled.hold.clear()
    client = await cloud.client()
    client.send(request())
    await soon(cloud.tailscaled.dialled.wait())
    cloud.peers(("8", IP, OTHER_TAGS))
    cloud.agent_joined()
    cloud.tailscaled.hold.set()
    assert problem((await soon(client.answer())).body) == (503, "agent_unroutable")
    assert tenant.got == b""


def move_after_look_up(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks an upstream up finds its address handed to another tenant before it is dialled."""
    mismatch, moved = reach.mismatch, False  # type: ignore[attr-defined]

    def and_then_it_moves(netmap: Netmap, upstream: Upstream) -> str | None:
        nonlocal moved
        found = mismatch(netmap, upstream)
        if not moved:
            moved = True
            cloud.peers(("8", IP, OTHER_TAGS))
        return found

    monkeypatch.setattr(reach, "mismatch", and_then_it_moves)


async def test_an_address_that_moves_between_look_up_and_dial(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = Tenant()
    cloud.agent(tenant)
    move_after_look_up(cloud, monkeypatch)
    assert problem((await cloud.ask(request())).body) == (503, "agent_unroutable")
    assert cloud.tailscaled.dials == []
    assert tenant.got == b""


async def test_a_stream_ends_when_the_address_moves(cloud: Cloud) -> None:
    tenant = Tenant()
    seen = asyncio.Event()
    rest = b""

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal rest
        await reader.readuntil(b"first")
        seen.set()
        with contextlib.suppress(ConnectionError):
            rest = await reader.read()
        seen.set()

    cloud.agent(agent)
    client = await cloud.client()
    client.send(request(method="POST", headers="Content-Length: 100\r\n", body=b"first"))
    await soon(seen.wait())
    seen.clear()
    cloud.agent(tenant)
    cloud.peers(("8", IP, OTHER_TAGS))
    client.send(b"second")
    await soon(seen.wait())
    assert rest == b""
    assert (await soon(client.answer())).status == 502
    assert tenant.connections == 0


async def test_a_peer_with_a_new_key_is_dialled_anew(cloud: Cloud) -> None:
    """The same node id may come back as another machine."""
    agent = RawAgent()
    cloud.agent(agent)
    client = await cloud.client()
    assert (await client.ask(request())).status == 200
    peer = {"NodeID": 7, "Key": "nodekey:other"}
    cloud.worker.netmap_changed(cloud.netmap.apply({"PeerChangedPatch": [peer]}))
    await soon(agent.gone.wait())
    assert (await client.ask(request())).status == 200
    assert agent.connections == 2


async def test_going_offline_and_online_costs_no_connection(cloud: Cloud) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    client = await cloud.client()
    for online in (True, False, True):
        changes = cloud.netmap.apply({"PeerChangedPatch": [{"NodeID": 7, "Online": online}]})
        cloud.worker.netmap_changed(changes)
        assert (await client.ask(request())).status == 200
    assert agent.connections == 1


async def test_the_relays_own_address_is_never_dialled(cloud: Cloud) -> None:
    """It would lead to the host's loopback (lab.md)."""
    cloud.hub.publish(upstream(ip=OWN_IP))
    cloud.peers(("7", OWN_IP, TAGS))
    await cloud.told()
    assert (await cloud.ask(request())).status == 503
    assert cloud.tailscaled.dials == []


async def test_an_address_that_is_no_peer_of_tailscaleds_is_refused(cloud: Cloud) -> None:
    """`Dial-Self: true`: tailscaled would leave by the host's network."""
    assert problem((await cloud.ask(request())).body) == (503, "agent_unroutable")
    assert cloud.tailscaled.dials == [f"{IP}:2138"]


async def test_while_the_netmap_is_not_known_nothing_is_dialled(cloud: Cloud) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    cloud.netmap.lost()
    client = await cloud.client()
    client.send(request())
    await until(lambda: cloud.metrics.in_flight == 1)
    assert cloud.tailscaled.dials == []
    cloud.agent_joined()
    cloud.worker.netmap_changed(())
    assert (await soon(client.answer())).status == 200


async def test_a_relay_that_does_not_follow_its_tailnet_says_so(run_dir: Path) -> None:
    async with Cloud(run_dir).running(wake_hold_seconds=0.05) as cloud:
        cloud.netmap.lost()
        assert problem((await cloud.ask(request())).body) == (503, "tailnet_unavailable")
        assert cloud.metrics.identity_refused == 0


async def test_a_node_that_vanished_is_said_after_the_hold(run_dir: Path) -> None:
    async with Cloud(run_dir).running(wake_hold_seconds=0.05) as cloud:
        cloud.peers()
        assert problem((await cloud.ask(request())).body) == (503, "agent_unroutable")


async def test_without_a_tailscaled_the_answer_says_so(cloud: Cloud) -> None:
    (cloud.run_dir / "tailscaled").unlink()
    assert problem((await cloud.ask(request())).body) == (503, "tailnet_unavailable")


async def test_a_joined_agent_is_told_to_the_control_plane(cloud: Cloud) -> None:
    cloud.peers(("7", IP, TAGS), ("9", "100.64.0.9", OTHER_TAGS), ("10", "100.64.0.10", ("tag:relay",)))
    async with asyncio.timeout(20):
        while "9" not in [peer.node_id for peer in cloud.heard.peers]:
            cloud.heard.any.clear()
            await soon(cloud.heard.any.wait())
    assert "10" not in [peer.node_id for peer in cloud.heard.peers]


async def written_to_an_open_pool(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> int:
    agent = RawAgent()
    cloud.agent(agent)
    client = await cloud.client()
    assert (await client.ask(request("/before"))).status == 200
    cloud.peers(("8", IP, OTHER_TAGS))
    await soon(client.ask(request("/after")))
    return len(agent.heads) - 1


async def written_after_a_dial(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> int:
    agent = RawAgent()
    cloud.agent(agent)
    cloud.tailscaled.hold.clear()
    client = await cloud.client()
    client.send(request())
    await soon(cloud.tailscaled.dialled.wait())
    cloud.peers(("8", IP, OTHER_TAGS))
    cloud.tailscaled.hold.set()
    await soon(client.answer())
    return len(agent.heads)


async def written_between_look_up_and_dial(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> int:
    agent = RawAgent()
    cloud.agent(agent)
    move_after_look_up(cloud, monkeypatch)
    await cloud.ask(request())
    return len(agent.heads)


MOVES = [written_to_an_open_pool, written_after_a_dial, written_between_look_up_and_dial]


@pytest.mark.parametrize("move", MOVES)
@pytest.mark.parametrize("checked", [True, False])
async def test_nothing_is_written_after_a_change_and_without_the_checks_it_would_be(
    cloud: Cloud,
    monkeypatch: pytest.MonkeyPatch,
    move: Callable[[Cloud, pytest.MonkeyPatch], Awaitable[int]],
    checked: bool,
) -> None:
    """The same steps twice, so that what is tested is the check and not the way that the test goes about it."""
    if not checked:
        monkeypatch.setattr(reach, "mismatch", lambda netmap, upstream: None)
        monkeypatch.setattr(cloud.worker, "netmap_changed", lambda changes: None)
    assert await move(cloud, monkeypatch) == (0 if checked else 1)


async def test_who_waited_for_a_dial_to_one_run_is_not_sent_to_the_next(run_dir: Path) -> None:
    one_dial = LimitSettings(dials_per_agent=1)
    async with Cloud(run_dir).running(limits=one_dial, dial_timeout_seconds=20.0) as cloud:
        agent = RawAgent()
        cloud.agent(agent)
        cloud.tailscaled.hold.clear()
        dials, waits = await cloud.client(), await cloud.client()
        dials.send(request())
        await until(lambda: bool(cloud.tailscaled.dials))
        waits.send(request())
        (pool,) = cloud.worker._reach._pools.values()
        await until(lambda: bool(pool.dials.waiting))
        cloud.hub.publish(upstream(run=2, agent_token=SecretStr("eca_next")))
        await cloud.told()
        cloud.tailscaled.hold.set()
        assert [(await soon(client.answer())).status for client in (dials, waits)] == [503, 503]
        assert agent.heads == []
        assert (await cloud.ask(request())).status == 200
        assert b"Authorization: Bearer eca_next" in agent.lines
