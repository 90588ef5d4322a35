import asyncio

import pytest
from structlog.testing import capture_logs

from elizacloud.auth.jwt import Claims, Verifier
from elizacloud.relay.reading import READ_BYTES, SHORT_READ_BYTES
from tests.relay.conftest import Cloud, RawAgent, let_all_wait, request, soon, until, upstream

UPGRADE = "Connection: Upgrade\r\nUpgrade: x\r\n"
SWITCHED = b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"
ALL_THAT_TLS_HOLDS = 300_000


async def test_uploads_are_read_in_pieces(cloud: Cloud, agent: RawAgent) -> None:
    client = await cloud.client()
    client.send(request(method="POST", headers="Content-Length: 9\r\n"))
    await until(lambda: bool(agent.heads))
    (connection,) = cloud.worker._clients
    turns = cloud.worker._surroundings.turns
    assert not turns.alone
    assert len(connection.get_buffer(ALL_THAT_TLS_HOLDS)) == SHORT_READ_BYTES
    turns._shared_until = 0.0
    turns._looked()
    assert len(connection.get_buffer(ALL_THAT_TLS_HOLDS)) == READ_BYTES


async def test_of_an_upgraded_connection_nothing_is_left_to_be_forgotten(cloud: Cloud) -> None:
    cloud.agent(RawAgent(SWITCHED))
    client = await cloud.client()
    assert (await soon(client.ask(request(headers=UPGRADE)))).status == 101
    (connection,) = cloud.worker._clients
    assert len(connection.get_buffer(ALL_THAT_TLS_HOLDS)) >= ALL_THAT_TLS_HOLDS


async def test_what_an_upgraded_client_sent_before_it_left_reaches_the_agent(cloud: Cloud) -> None:
    got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SWITCHED)
        got.set_result(await reader.read())

    cloud.agent(agent)
    client = await cloud.client()
    assert (await soon(client.ask(request(headers=UPGRADE)))).status == 101
    turns = cloud.worker._surroundings.turns
    let_all_wait(turns)
    client.send(b"last words")
    await until(lambda: bool(turns._lines))
    client.close()
    assert await soon(got) == b"last words"


async def test_a_bug_that_a_request_meets_ends_nobody_elses(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def met(verifier: Verifier, token: str) -> Claims:
        raise RuntimeError("a bug")

    monkeypatch.setattr(Verifier, "verify", met)
    silent = RawAgent(b"")
    cloud.agent(silent)
    other, client = await cloud.client(), await cloud.client()
    client.send(request() + request(token="eyJhbGciOiJFZERTQSJ9.e30.AA"))
    await until(lambda: bool(silent.heads))
    cloud.agent(RawAgent())
    cloud.worker._surroundings.turns._left = 64.0  # the second begins in the step that ends the first
    with capture_logs() as logged:
        cloud.hub.publish(upstream(run=2))
        await until(lambda: cloud.metrics.clients == 1)
    assert [line["event"] for line in logged] == ["a connection is cut: what came on it met a bug"]
    assert (await soon(other.ask(request()))).status == 200
