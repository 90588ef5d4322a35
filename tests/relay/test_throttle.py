"""Bytes a second: what was read passes, and its source is not read again before the rate allows it."""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from elizacloud.relay.limits import LimitSettings
from elizacloud.relay.throttle import Bucket, Throttle, Valve
from tests.relay.conftest import (
    AGENT,
    IP,
    OTHER_AGENT,
    Cloud,
    RawAgent,
    request,
    soon,
    until,
    upstream,
)

UPGRADE = "Connection: Upgrade\r\nUpgrade: x\r\n"
STUCK_SECONDS = 0.3


def test_a_bucket_lets_a_burst_pass_and_then_so_much_a_second() -> None:
    bucket = Bucket(100, 0)
    assert bucket.take(100, 0) == 0
    assert bucket.take(50, 0) == 0.5
    assert bucket.take(0, 0.25) == 0.25
    assert bucket.take(0, 0.5) == 0
    assert bucket.take(100, 1000) == 0
    assert bucket.take(100, 1000) == 1


async def test_without_limits_there_is_no_flow() -> None:
    assert Throttle(None, None).flow("a", "o") is None


@pytest.mark.parametrize(
    ("rates", "other", "waits"),
    [
        ((10.0, None), ("a", "o"), True),
        ((10.0, None), ("b", "o"), False),
        ((None, 10.0), ("b", "o"), True),
        ((None, 10.0), ("b", "p"), False),
        ((1e9, 10.0), ("a", "o"), True),
    ],
)
async def test_a_budget_is_an_agents_or_an_owners(
    rates: tuple[float | None, float | None], other: tuple[str, str], waits: bool
) -> None:
    throttle = Throttle(*rates)
    one, two = throttle.flow("a", "o"), throttle.flow(*other)
    assert one is not None
    assert two is not None
    assert one.passed(10_000) > 900
    assert (two.passed(1) > 900) is waits


async def test_buckets_do_not_pile_up() -> None:
    throttle = Throttle(1e12, None)
    for number in range(25_000):
        throttle.flow(str(number), "o")
    assert len(throttle._buckets) <= 10_001


async def test_a_source_is_read_while_there_is_no_debt_and_the_other_side_takes_it() -> None:
    flow = Throttle(10.0, None).flow("a", "o")
    assert flow is not None
    told: list[bool] = []
    valve = Valve(flow)
    valve.reopen = told.append
    assert not valve.must_close(10)
    assert valve.may_open(True)
    assert valve.must_close(1)
    assert not valve.may_open(True)
    valve._paid_off()
    assert told == [True]
    assert valve.must_close(1)
    assert not valve.may_open(False)
    valve._paid_off()
    assert told == [True]  # still full
    assert valve.may_open(True)
    valve.must_close(1)
    valve.close()
    assert valve.may_open(True)


async def sends_for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stuck: Callable[[], None]) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        while True:
            writer.write(b"x" * 100_000)
            try:
                async with asyncio.timeout(STUCK_SECONDS):
                    await writer.drain()
            except TimeoutError:
                stuck()
                await writer.drain()


async def reads_for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while await reader.read(1 << 20):
            pass
    writer.close()


async def test_a_greedy_download_is_not_read_on_and_others_are_not_moved(run_dir: Path) -> None:
    limits = replace(LimitSettings(), agent_bytes_per_second=1)
    async with Cloud(run_dir).running(limits=limits) as cloud:
        other = upstream(agent_id=OTHER_AGENT, node_id="8", ip="100.64.0.8")
        cloud.hub.publish(other)
        cloud.peers(("7", IP, ("tag:agent", f"tag:a-{AGENT}")), ("8", other.ip, ("tag:agent", f"tag:a-{OTHER_AGENT}")))
        await cloud.told()
        stuck = asyncio.Event()
        cloud.agent(lambda reader, writer: sends_for_ever(reader, writer, stuck.set))
        cloud.agent(RawAgent(), other.ip)
        client = await cloud.client()
        client.send(request())
        await soon(stuck.wait())
        assert cloud.metrics.bytes_out < 1_000_000  # one read, which passed at once
        await soon(client.reader.readexactly(cloud.metrics.bytes_out))
        assert (await cloud.ask(request(agent=OTHER_AGENT))).status == 200
        client.close()
        await until(lambda: cloud.metrics.in_flight == 0)


async def test_a_greedy_upload_is_not_read_on(run_dir: Path) -> None:
    async with Cloud(run_dir).running(limits=LimitSettings(owner_bytes_per_second=1)) as cloud:
        cloud.agent(reads_for_ever)
        client = await cloud.client()
        client.send(request(method="POST", headers="Content-Length: 100000000\r\n"))
        with pytest.raises(TimeoutError):
            while True:
                client.send(b"x" * 1_000_000)
                async with asyncio.timeout(STUCK_SECONDS):
                    await client.writer.drain()
        assert 0 < cloud.metrics.bytes_in < 2_000_000
        assert cloud.metrics.in_flight == 1


async def test_a_pipe_is_slowed_too(run_dir: Path) -> None:
    async with Cloud(run_dir).running(limits=LimitSettings(agent_bytes_per_second=1)) as cloud:
        cloud.agent(RawAgent(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"))
        client = await cloud.client()
        assert (await soon(client.ask(request(headers=UPGRADE)))).status == 101
        client.send(b"0123456789")
        await until(lambda: cloud.metrics.bytes_in == 10)
        (connection,) = cloud.worker._clients
        assert connection._paused


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_is_slowed_arrives_as_a_whole(run_dir: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = 0
    paid_off = Valve._paid_off

    def counted(valve: Valve) -> None:
        nonlocal waits
        waits += 1
        paid_off(valve)

    monkeypatch.setattr(Valve, "_paid_off", counted)
    # The first piece is more than that, however slowly it comes.
    monkeypatch.setattr("elizacloud.relay.throttle._BURST_SECONDS", 0.001)
    body = bytes(range(256)) * 12_000

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        got = body if method == "GET" else await reader.readexactly(len(body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(got) + got)

    async with Cloud(run_dir).running(limits=LimitSettings(agent_bytes_per_second=5e6)) as cloud:
        cloud.agent(agent)
        sent = (
            request()
            if method == "GET"
            else request(method="POST", headers=f"Content-Length: {len(body)}\r\n", body=body)
        )
        assert (await cloud.ask(sent)).body == body
        assert waits >= 1


async def test_one_answer_after_another_is_no_faster_than_a_long_one(run_dir: Path) -> None:
    async with Cloud(run_dir).running(limits=LimitSettings(agent_bytes_per_second=1)) as cloud:
        agent = RawAgent(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000)
        cloud.agent(agent)
        client = await cloud.client()
        assert (await soon(client.ask(request()))).status == 200
        client.send(request())
        await until(lambda: cloud.metrics.in_flight == 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(STUCK_SECONDS):
                await client.reader.read(1)
        assert len(agent.heads) == 1


async def test_after_the_debt_the_pooled_connection_is_used(run_dir: Path) -> None:
    async with Cloud(run_dir).running(limits=LimitSettings(agent_bytes_per_second=20)) as cloud:
        agent = RawAgent()  # answers with two bytes
        cloud.agent(agent)
        client = await cloud.client()
        for _ in range(12):
            assert (await soon(client.ask(request()))).status == 200
        assert agent.connections == 1
