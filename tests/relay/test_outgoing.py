import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from elizacloud.relay.outgoing import Outgoing
from tests.relay.conftest import Cloud, RawAgent, request

LARGE = bytes(32 << 10)


class Wire:
    """A transport and an event loop that keep what they are given."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.soon: list[Callable[[], None]] = []
        self.closing = False
        self.outgoing = Outgoing(cast(asyncio.Transport, self), self.soon.append)

    def write(self, data: bytes) -> None:
        self.written.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def turn(self) -> None:
        soon = tuple(self.soon)
        self.soon.clear()
        for each in soon:
            each()


@pytest.fixture
def wire() -> Wire:
    return Wire()


def test_small_writes_that_may_wait_leave_together_in_the_next_turn(wire: Wire) -> None:
    wire.outgoing.write(b"one ", may_wait=True)
    wire.outgoing.write(b"two", may_wait=True)
    assert wire.written == []
    wire.turn()
    assert wire.written == [b"one two"]
    assert wire.soon == []


def test_what_may_not_wait_leaves_at_once(wire: Wire) -> None:
    wire.outgoing.write(b"now", may_wait=False)
    assert wire.written == [b"now"]
    assert wire.soon == []


def test_nothing_overtakes_what_waits(wire: Wire) -> None:
    wire.outgoing.write(b"one ", may_wait=True)
    wire.outgoing.write(b"two", may_wait=False)
    wire.outgoing.write(LARGE, may_wait=True)
    assert wire.written == [b"one two", LARGE]
    wire.turn()
    assert wire.written == [b"one two", LARGE]


def test_small_writes_do_not_pile_up(wire: Wire) -> None:
    for _ in range(100):
        wire.outgoing.write(bytes(1 << 10), may_wait=True)
    wire.turn()
    assert sum(map(len, wire.written)) == 100 << 10
    assert max(map(len, wire.written)) <= 16 << 10


def test_what_waits_is_not_written_once_the_connection_was_ended(wire: Wire) -> None:
    wire.outgoing.write(b"too late", may_wait=True)
    wire.closing = True
    wire.turn()
    assert wire.written == []


def let_writes_wait(cloud: Cloud) -> None:
    """One owner is alone, and has many requests on their way."""
    turns = cloud.worker._surroundings.turns
    turns._shared_until = 0.0
    turns._looked()
    cloud.metrics.in_flight += 100
    assert cloud.worker._surroundings.writes_may_wait()


async def test_an_answer_that_ends_its_connection_arrives_whole(cloud: Cloud, agent: RawAgent) -> None:
    assert (await cloud.ask(request())).status == 200
    let_writes_wait(cloud)
    client = await cloud.client()
    async with asyncio.timeout(20):
        answer = await client.ask(request(headers="Connection: close\r\n"))
        assert (answer.status, answer.body) == (200, b"ok")
        assert await client.reader.read() == b""


async def test_pipelined_requests_are_answered_in_order(cloud: Cloud) -> None:
    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            target = head.split(b" ", 2)[1]
            body = target if target != b"/large" else LARGE
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    cloud.agent(agent)
    assert (await cloud.ask(request())).status == 200
    let_writes_wait(cloud)
    client = await cloud.client()
    async with asyncio.timeout(20):
        client.send(request("/a") + request("/large") + request("/b"))
        assert [(await client.answer()).body for _ in range(3)] == [b"/a", LARGE, b"/b"]


async def test_a_request_that_waits_is_never_sent_once_its_agent_is_gone(cloud: Cloud, agent: RawAgent) -> None:
    """As the rule of reach.py wants it: no byte is written after the change was seen."""
    assert (await cloud.ask(request("/first"))).status == 200
    let_writes_wait(cloud)
    (pool,) = cloud.worker._reach._pools.values()
    connection = pool.lease()
    assert connection is not None
    sent: list[str] = []
    connection.begin(Lost(sent), b"GET", upgrade=False)  # type: ignore[arg-type]
    connection.write(b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n", may_wait=True)
    pool.kill("it is somebody else's address now")
    async with asyncio.timeout(20):
        await agent.gone.wait()
    assert sent == ["it is somebody else's address now"]
    assert [head.split(b" ")[1] for head in agent.heads] == [b"/first"]


class Lost:
    """A taker that is told why there is no answer."""

    def __init__(self, told: list[str]) -> None:
        self._told = told

    def upstream_lost(self, reason: str) -> None:
        self._told.append(reason)
