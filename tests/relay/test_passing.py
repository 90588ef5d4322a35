"""An agent that takes no more: what its client sends waits for it, for so long."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from elizacloud.relay.exchange import Exchange
from tests.relay.conftest import Cloud, RawClient, request, soon, until

UPGRADE = request("/ws", headers="Connection: Upgrade\r\nUpgrade: x\r\n")
SWITCHED = b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
EARLY = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nearly"
MORE_THAN_ANY_BUFFER = 8 << 20


@dataclass
class Stuck:
    """Reads a head and nothing more; says what the test wants it to."""

    answer: bytes = b""
    goes_on: bytes = b""
    """It says this for as long as it is there."""
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(self.answer)
        while self.goes_on and not self.over.is_set():
            writer.write(self.goes_on)
            await asyncio.sleep(0)
        await self.over.wait()
        writer.close()


def post(size: int) -> bytes:
    return request(method="POST", headers=f"Content-Length: {size}\r\n", body=bytes(size))


def exchange_of(cloud: Cloud) -> Exchange:
    (connection,) = cloud.worker._clients
    assert connection._exchange is not None
    return connection._exchange


async def upgraded(cloud: Cloud, agent: Stuck) -> tuple[RawClient, Exchange]:
    """A client that sends more than its agent reads, once the relay reads no more of it."""
    cloud.agent(agent)
    client = await cloud.client()
    assert (await soon(client.ask(UPGRADE))).status == 101
    client.send(bytes(MORE_THAN_ANY_BUFFER))
    (connection,) = cloud.worker._clients
    await until(lambda: connection._paused)
    return client, exchange_of(cloud)


async def test_an_upload_does_not_wait_for_ever(run_dir: Path) -> None:
    async with Cloud(run_dir).running(standstill_seconds=0.05) as cloud:
        agent = Stuck()
        cloud.agent(agent)
        client = await cloud.client()
        answer = await soon(client.ask(post(MORE_THAN_ANY_BUFFER)))
        assert (answer.status, answer.header("Elizacloud-Error")) == (504, "agent_timeout")
        assert b"took nothing of its body for 0.05 s" in answer.body
        assert cloud.metrics.in_flight == 0
        assert cloud.worker._reach.connections() == (0, 0)
        agent.over.set()


async def test_nor_does_an_upgraded_client(cloud: Cloud) -> None:
    agent = Stuck(SWITCHED)
    client, exchange = await upgraded(cloud, agent)
    exchange.upstream_full()
    assert cloud.metrics.requests["agent", "agent_timeout"] == 1
    assert await soon(client.at_end())
    await until(lambda: cloud.worker._reach.connections() == (0, 0))
    agent.over.set()


async def test_an_agent_that_speaks_may_read_later(cloud: Cloud) -> None:
    agent = Stuck(SWITCHED, goes_on=b"x")
    _, exchange = await upgraded(cloud, agent)
    await until(lambda: exchange._bytes_out > exchange._out_before)
    exchange.upstream_full()
    assert cloud.metrics.in_flight == 1
    exchange.upstream_full()  # and has said nothing since
    assert cloud.metrics.requests["agent", "agent_timeout"] == 1
    await until(lambda: cloud.metrics.clients == 0)
    agent.over.set()


async def test_an_agent_that_we_do_not_listen_to_is_not_late(cloud: Cloud) -> None:
    agent = Stuck(SWITCHED)
    _, exchange = await upgraded(cloud, agent)
    exchange.client_writable(False)
    exchange.upstream_full()
    assert cloud.metrics.in_flight == 1
    exchange.client_writable(True)
    exchange.upstream_full()
    assert cloud.metrics.requests["agent", "agent_timeout"] == 1
    agent.over.set()


@pytest.mark.parametrize("size", [10_000, MORE_THAN_ANY_BUFFER])
async def test_nobody_waits_for_the_rest_of_a_body_that_was_answered(cloud: Cloud, size: int) -> None:
    agent = Stuck(EARLY)
    cloud.agent(agent)
    client = await cloud.client()
    client.send(post(size))
    await soon(client.reader.readuntil(b"early"))
    exchange_of(cloud).upstream_full()
    assert cloud.metrics.in_flight == 1
    agent.over.set()
    await until(lambda: cloud.metrics.in_flight == 0)
