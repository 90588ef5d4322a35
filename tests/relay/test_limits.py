"""Budgets of agents, owners and addresses: what is over them is refused at once, and what ends makes room."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest

from elizacloud.errors import TooMany
from elizacloud.relay.edge import Edge, Request
from elizacloud.relay.headers.cors import Cors
from elizacloud.relay.headers.forwarded import Peer, Proxies
from elizacloud.relay.http1.head import RequestHead
from elizacloud.relay.limits import Limits, LimitSettings
from tests.relay.conftest import (
    AGENT,
    IP,
    OTHER_AGENT,
    Cloud,
    RawAgent,
    RawClient,
    refuse,
    request,
    soon,
    until,
    upstream,
)

EDGE = Edge(Cors(()), Proxies(["10.0.0.0/8"]))
NO_ANSWER = b""


def peer(address: str = "192.0.2.1") -> Peer:
    return EDGE.proxies.peer((address, 1), secure=False)


def asked(agent: str = "a", owner: str = "o") -> Request:
    asked = EDGE.receive(RequestHead(b"GET", b"/", 1, [], b"h"), peer())
    asked.agent_id, asked.owner_id = agent, owner
    return asked


def lines(request: Request) -> dict[str, str]:
    pairs = (line.split(": ", 1) for line in request.edge_lines.decode().split("\r\n")[:-1])
    return {name: value for name, value in pairs if name.startswith("RateLimit")}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("other", "refused"), [(("a", "o"), True), (("b", "o"), False), (("b", "p"), False)])
def test_an_agents_budget_is_its_own(stream: bool, other: tuple[str, str], refused: bool) -> None:
    limits = Limits(LimitSettings(agent_in_flight=1, agent_streams=1))
    limits.enter(asked(), stream=stream)
    limits.check(asked(), stream=not stream)
    second = asked(*other)
    if refused:
        with pytest.raises(TooMany):
            limits.check(second, stream=stream)
        name = "agent-streams" if stream else "agent-in-flight"
        assert lines(second) == {
            "RateLimit-Policy": f'"{name}";q=1;qu="concurrent-requests"',
            "RateLimit": f'"{name}";r=0',
        }
    else:
        limits.check(second, stream=stream)
    limits.leave(asked(), stream=stream)
    limits.check(asked(*other), stream=stream)


@pytest.mark.parametrize("stream", [True, False])
def test_an_owners_budget_covers_all_their_agents(stream: bool) -> None:
    limits = Limits(LimitSettings(owner_in_flight=2, owner_streams=2))
    limits.enter(asked("a"), stream=stream)
    limits.enter(asked("b"), stream=stream)
    with pytest.raises(TooMany, match="2 of this owner"):
        limits.check(asked("c"), stream=stream)
    limits.check(asked("c", "p"), stream=stream)


def test_a_rate_allows_a_burst_and_then_so_many_a_second() -> None:
    now = [100.0]
    limits = Limits(LimitSettings(owner_requests_per_second=2), lambda: now[0])
    for left in (3, 2, 1, 0):
        one = asked()
        limits.check(one, stream=False)
        assert lines(one)["RateLimit"].startswith(f'"owner-requests";r={left};')
    late = asked("b")
    with pytest.raises(TooMany) as refused:
        limits.check(late, stream=False)
    assert refused.value.retry_after_seconds == 0.5
    assert lines(late) == {"RateLimit-Policy": '"owner-requests";q=4;w=2', "RateLimit": '"owner-requests";r=0;t=1'}
    limits.check(asked(owner="p"), stream=False)
    now[0] += 0.5
    limits.check(asked(), stream=False)
    with pytest.raises(TooMany):
        limits.check(asked(), stream=False)
    now[0] += 3600
    one = asked()
    limits.check(one, stream=False)
    assert lines(one)["RateLimit"] == '"owner-requests";r=3;t=1'


def test_an_agents_rate_is_told_beside_the_owners_and_what_one_refuses_costs_the_other_nothing() -> None:
    limits = Limits(LimitSettings(agent_requests_per_second=0.5, owner_requests_per_second=2), lambda: 100.0)
    first, second, other = asked(), asked(), asked("b")
    limits.check(first, stream=False)
    assert lines(first) == {
        "RateLimit-Policy": '"agent-requests";q=1;w=2, "owner-requests";q=4;w=2',
        "RateLimit": '"agent-requests";r=0;t=2, "owner-requests";r=3;t=1',
    }
    with pytest.raises(TooMany, match=r"this agent may have 0\.5 a second") as refused:
        limits.check(second, stream=False)
    assert refused.value.retry_after_seconds == 2
    limits.check(other, stream=False)
    assert lines(other)["RateLimit"].endswith('"owner-requests";r=2;t=1')


def test_buckets_do_not_pile_up() -> None:
    now = [100.0]
    limits = Limits(LimitSettings(owner_requests_per_second=1), lambda: now[0])
    for number in range(25_000):
        now[0] += 0.001
        limits.check(asked(owner=str(number)), stream=False)
    assert all(len(rate._buckets) <= 10_001 for rate in limits._rates if rate is not None)


def test_connections_are_counted_by_address_and_not_for_proxies() -> None:
    limits = Limits(LimitSettings(connections_per_address=2))
    assert [limits.connected(peer()) for _ in range(5)] == [0, 0, 1, 1, 2]
    assert limits.connected(peer("192.0.2.2")) == 0
    assert [limits.connected(peer("10.0.0.1")) for _ in range(5)] == [0] * 5
    limits.disconnected(peer("10.0.0.1"), headless=True)
    for _ in range(5):
        limits.disconnected(peer(), headless=True)
    assert limits.connected(peer()) == 0


def test_connections_without_a_head_have_a_smaller_share() -> None:
    limits = Limits(LimitSettings(headless_per_address=1))
    assert [limits.connected(peer()) for _ in range(3)] == [0, 1, 2]
    limits.disconnected(peer(), headless=True)
    limits.disconnected(peer(), headless=True)
    limits.head_came(peer())
    assert limits.connected(peer()) == 0
    limits.disconnected(peer(), headless=False)
    assert limits.connected(peer()) == 1


def test_handshakes_have_the_same_share_and_proxies_have_any_number() -> None:
    limits = Limits(LimitSettings(headless_per_address=2))
    assert [limits.handshake_began(peer()) for _ in range(3)] == [True, True, False]
    limits.handshake_ended(peer())
    assert [limits.handshake_began(peer()) for _ in range(2)] == [True, False]
    assert all(limits.handshake_began(peer("10.0.0.1")) for _ in range(3))
    limits.handshake_ended(peer("10.0.0.1"))


def test_neighbours_in_ipv6_share() -> None:
    limits = Limits(LimitSettings(connections_per_address=1))
    assert [limits.connected(peer(f"2001:db8::{n}")) for n in (1, 2)] == [0, 1]
    assert limits.connected(peer("2001:db8:0:1::1")) == 0


async def test_a_full_agent_is_429_and_others_are_not_moved(run_dir: Path) -> None:
    async with Cloud(run_dir).running(limits=LimitSettings(agent_in_flight=1)) as cloud:
        other = upstream(agent_id=OTHER_AGENT, node_id="8", ip="100.64.0.8")
        cloud.hub.publish(other)
        cloud.peers(("7", IP, ("tag:agent", f"tag:a-{AGENT}")), ("8", other.ip, ("tag:agent", f"tag:a-{OTHER_AGENT}")))
        silent = RawAgent(NO_ANSWER)
        cloud.agent(silent)
        cloud.agent(RawAgent(), other.ip)
        await cloud.told()
        holder = await cloud.client()
        holder.send(request())
        await until(lambda: len(silent.heads) == 1)
        answer = await cloud.ask(request())
        assert (answer.status, answer.header("Elizacloud-Error")) == (429, "too_many_requests")
        assert answer.header("Retry-After") == "1"
        assert answer.header("RateLimit") == '"agent-in-flight";r=0'
        assert answer.header("RateLimit-Policy") == '"agent-in-flight";q=1;qu="concurrent-requests"'
        assert (await cloud.ask(request(agent=OTHER_AGENT))).status == 200
        assert len(silent.heads) == 1
        holder.close()
        await soon(silent.gone.wait())
        silent.answer = RawAgent().answer
        assert (await cloud.ask(request())).status == 200


async def test_a_stream_leaves_the_requests_alone_and_too_many_are_refused(run_dir: Path) -> None:
    events = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n"
    async with Cloud(run_dir).running(limits=LimitSettings(agent_in_flight=1, agent_streams=2)) as cloud:
        agent = RawAgent(events)
        cloud.agent(agent)
        for accept in ("text/event-stream", "*/*"):  # the second is known as a stream only by its answer
            client = await cloud.client()
            client.send(request(headers=f"Accept: {accept}\r\n"))
            await soon(client.reader.readuntil(b"data: 1\n\n"))
        for accept in ("text/event-stream", "*/*"):
            answer = await cloud.ask(request(headers=f"Accept: {accept}\r\n"))
            assert (answer.status, answer.header("Elizacloud-Error")) == (429, "too_many_streams")
            assert answer.header("Retry-After") == "5"
        agent.answer = RawAgent().answer
        assert (await cloud.ask(request())).status == 200


async def test_an_upgraded_connection_is_a_stream(run_dir: Path) -> None:
    async with Cloud(run_dir).running(limits=LimitSettings(agent_streams=1)) as cloud:
        cloud.agent(RawAgent(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"))
        upgrade = request(headers="Connection: Upgrade\r\nUpgrade: websocket\r\n")
        client = await cloud.client()
        assert (await soon(client.ask(upgrade))).status == 101
        assert (await cloud.ask(upgrade)).status == 429
        client.close()
        await until(lambda: cloud.metrics.in_flight == 0)
        client = await cloud.client()
        assert (await soon(client.ask(upgrade))).status == 101


async def test_a_rate_is_told_with_every_answer(run_dir: Path) -> None:
    async with Cloud(run_dir).running(limits=LimitSettings(owner_requests_per_second=0.001)) as cloud:
        cloud.agent(RawAgent())
        first = await cloud.ask(request())
        assert (first.status, (first.header("RateLimit") or "").split(";")[1]) == (200, "r=0")
        second = await cloud.ask(request())
        assert (second.status, second.header("Elizacloud-Error")) == (429, "too_many_requests")
        assert int(second.header("Retry-After") or 0) > 900


async def test_too_many_connections_of_one_address(run_dir: Path) -> None:
    async with Cloud(run_dir).running(limits=LimitSettings(connections_per_address=2)) as cloud:
        cloud.agent(RawAgent())
        kept = [await cloud.client() for _ in range(2)]
        refused = [await cloud.client() for _ in range(2)]
        for client in refused:
            assert (await soon(client.answer())).header("Elizacloud-Error") == "too_many_connections"
        assert await soon((await cloud.client()).at_end())
        assert (await soon(kept[0].ask(request()))).status == 200
        for client in refused:
            client.close()
        kept[1].close()
        await until(lambda: cloud.metrics.clients == 1)
        assert (await cloud.ask(request())).status == 200


async def test_an_address_has_a_share_of_connections_without_a_request(run_dir: Path) -> None:
    async with Cloud(run_dir).running(limits=LimitSettings(headless_per_address=2)) as cloud:
        cloud.agent(RawAgent())
        slow = [await cloud.client() for _ in range(2)]
        for client in slow:
            client.send(b"GET / HT")
        await until(lambda: cloud.metrics.clients == 2)
        refused = await cloud.client()
        assert (await soon(refused.answer())).header("Elizacloud-Error") == "too_many_connections"
        refused.close()
        slow[0].close()
        await until(lambda: cloud.metrics.clients == 1)
        slow[1].send(b"TP/1.1\r\nHost: x\r\n\r\n")
        assert (await soon(slow[1].answer())).status == 200
        for _ in range(3):  # who has sent a head is not counted any more
            assert (await soon((await cloud.client()).ask(request()))).status == 200


@pytest.mark.parametrize("drip", [b"\r\n", b"GET / HTTP/1.1\r\nA: ", b"\r\nGET / HTTP/1.1\r\nA: "])
async def test_no_drip_keeps_a_connection_without_a_request(run_dir: Path, drip: bytes) -> None:
    async with Cloud(run_dir).running(headers_timeout_seconds=0.3) as cloud:
        client = await cloud.client()
        client.send(drip)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20):
                while not client.reader.at_eof():
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.05):
                            await client.reader.read(1000)
                    client.send(drip[-2:])
        client.close()
        await until(lambda: cloud.metrics.clients == 0)


@pytest.mark.parametrize("sent", [b"", b"x" * 10])
async def test_a_body_that_comes_too_slowly_is_refused(run_dir: Path, sent: bytes) -> None:
    async with Cloud(run_dir).running(body_timeout_seconds=0.02, body_bytes_per_second=10_000) as cloud:
        agent = RawAgent(NO_ANSWER)
        cloud.agent(agent)
        client = await cloud.client()
        answer = await soon(client.ask(request(method="POST", headers="Content-Length: 1000\r\n", body=sent)))
        assert (answer.status, answer.header("Elizacloud-Error")) == (408, "request_timeout")
        assert answer.header("Connection") == "close"
        await soon(agent.gone.wait())
        assert cloud.metrics.in_flight == 0


async def test_once_the_answer_has_begun_a_body_may_take_its_time(cloud: Cloud) -> None:
    agent = RawAgent(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    cloud.agent(agent)
    client = await cloud.client()
    client.send(request(method="POST", headers="Transfer-Encoding: chunked\r\n"))
    await soon(client.reader.readuntil(b"hi\r\n"))
    (connection,) = cloud.worker._clients
    connection._late()
    assert not connection._transport.is_closing()
    assert cloud.metrics.in_flight == 1


async def test_a_steady_body_is_not_late(cloud: Cloud) -> None:
    agent = RawAgent(NO_ANSWER)
    cloud.agent(agent)
    client = await cloud.client()
    client.send(request(method="POST", headers="Content-Length: 10000\r\n", body=b"x" * 2000))
    await until(lambda: cloud.metrics.bytes_in == 2000)
    (connection,) = cloud.worker._clients
    connection._late()
    assert cloud.metrics.in_flight == 1
    connection._late()
    assert (await soon(client.answer())).status == 408


@pytest.mark.parametrize(
    ("headers", "body"),
    [("Content-Length: 11\r\n", b""), ("Transfer-Encoding: chunked\r\n", b"6\r\nsixsix\r\n5\r\nfive!\r\n")],
)
async def test_a_body_over_the_cap_is_413(run_dir: Path, headers: str, body: bytes) -> None:
    async with Cloud(run_dir).running(max_body_bytes=10) as cloud:
        agent = RawAgent(NO_ANSWER)
        cloud.agent(agent)
        answer = await cloud.ask(request(method="POST", headers=headers, body=body))
        assert (answer.status, answer.header("Elizacloud-Error")) == (413, "body_too_large")
        assert (agent.heads == []) is (body == b"")
        agent.answer = RawAgent().answer
        exact = request(method="POST", headers="Content-Length: 10\r\n", body=b"x" * 10)
        assert (await cloud.ask(exact)).status == 200


async def asking(cloud: Cloud, count: int) -> list[RawClient]:
    clients = [await cloud.client() for _ in range(count)]
    for client in clients:
        client.send(request())
    return clients


async def test_dials_to_a_silent_agent_are_bounded_and_their_outcome_is_shared(run_dir: Path) -> None:
    limits = replace(LimitSettings(), dials_per_agent=2)
    async with Cloud(run_dir).running(limits=limits, dial_timeout_seconds=0.2) as cloud:
        cloud.agent(RawAgent())
        cloud.tailscaled.hold.clear()
        answers = [await soon(client.answer()) for client in await asking(cloud, 20)]
        assert {answer.header("Elizacloud-Error") for answer in answers} == {"agent_timeout"}
        assert len(cloud.tailscaled.dials) == 2


async def test_who_waits_hears_what_those_who_dialled_heard(run_dir: Path) -> None:
    limits = replace(LimitSettings(), dials_per_agent=2)
    async with Cloud(run_dir).running(limits=limits) as cloud:
        cloud.agent(refuse)
        cloud.tailscaled.hold.clear()
        clients = await asking(cloud, 20)
        await until(lambda: cloud.metrics.in_flight == 20 and len(cloud.tailscaled.dials) == 2)
        cloud.tailscaled.hold.set()
        answers = [await soon(client.answer()) for client in clients]
        assert {answer.header("Elizacloud-Error") for answer in answers} == {"agent_refused"}
        assert len(cloud.tailscaled.dials) == 2


async def test_who_waits_for_a_dial_takes_what_becomes_free(run_dir: Path) -> None:
    limits = replace(LimitSettings(), dials_per_agent=1)
    async with Cloud(run_dir).running(limits=limits) as cloud:
        agent = RawAgent()
        cloud.agent(agent)
        cloud.tailscaled.hold.clear()
        clients = await asking(cloud, 20)
        await until(lambda: cloud.metrics.in_flight == 20)
        await soon(cloud.tailscaled.dialled.wait())
        assert len(cloud.tailscaled.dials) == 1
        cloud.tailscaled.hold.set()
        assert {(await soon(client.answer())).status for client in clients} == {200}
        assert len(agent.heads) == 20


async def test_a_client_that_leaves_the_queue_gives_its_turn_on(run_dir: Path) -> None:
    limits = replace(LimitSettings(), dials_per_agent=1)
    async with Cloud(run_dir).running(limits=limits) as cloud:
        cloud.agent(RawAgent())
        cloud.tailscaled.hold.clear()
        clients = [await cloud.client() for _ in range(3)]
        for number, client in enumerate(clients):
            client.send(request())
            await until(lambda number=number: cloud.metrics.in_flight == number + 1)  # type: ignore[misc]
        for client in clients[:2]:
            client.close()
        await until(lambda: cloud.metrics.in_flight == 1)
        cloud.tailscaled.hold.set()
        assert (await soon(clients[2].answer())).status == 200
