"""An agent that answers so that the relay, or the client behind it, reads something else than one answer."""

import asyncio

import pytest

from tests.relay.conftest import AGENT, TOKEN, Cloud, RawAgent, request, soon, until
from tests.relay.test_worker import problem

OK = b"HTTP/1.1 200 OK\r\n"
END = b"Content-Length: 2\r\n\r\nok"
TE = b"Transfer-Encoding: chunked\r\n"

SPLITTING = {
    "bare CR in a value": OK + b"A: b\rSet-Cookie: c\r\n" + END,
    "bare LF in a value": OK + b"A: b\nSet-Cookie: c\r\n" + END,
    "NUL in a value": OK + b"A: b\x00c\r\n" + END,
    "fold": OK + b"A: b\r\n Set-Cookie: c\r\n" + END,
    "blank before the colon": OK + b"A : b\r\n" + END,
    "no name": OK + b": b\r\n" + END,
    "blank in a name": OK + b"A b: c\r\n" + END,
    "CR in the reason": b"HTTP/1.1 200 O\rK\r\n" + END,
    "LF in the reason": b"HTTP/1.1 200 O\nSet-Cookie: c\r\n" + END,
    "NUL in the reason": b"HTTP/1.1 200 O\x00K\r\n" + END,
    "bare LF everywhere": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok\r\n\r\n",
    "another version": b"HTTP/2.0 200 OK\r\n" + END,
    "HTTP/0.9": b"<html>hello</html>\r\n\r\n",
    "a status of four digits": b"HTTP/1.1 2000 OK\r\n" + END,
    "a status of 0": b"HTTP/1.1 000 OK\r\n" + END,
}
FRAMING = {
    "two lengths": OK + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\nok",
    "two equal lengths": OK + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "a list of lengths": OK + b"Content-Length: 2, 2\r\n\r\nok",
    "a signed length": OK + b"Content-Length: +2\r\n\r\nok",
    "a length beside chunks": OK + TE + b"Content-Length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "an unknown coding": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two codings": OK + TE + TE + b"\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + TE + b"\r\n0\r\n\r\n",
    "a huge length": OK + b"Content-Length: 99999999999999999999\r\n\r\n",
}


@pytest.mark.parametrize("case", [*SPLITTING, *FRAMING])
async def test_an_answer_that_can_be_read_two_ways_is_refused(cloud: Cloud, case: str) -> None:
    agent = RawAgent((SPLITTING | FRAMING)[case])
    cloud.agent(agent)
    client = await cloud.client()
    answer = await soon(client.ask(request()))
    assert problem(answer.body) == (502, "agent_refused")
    assert b"Set-Cookie" not in answer.head
    await soon(agent.gone.wait())  # nothing is sent on that connection again
    agent.answer = OK + END
    assert (await soon(client.ask(request()))).body == b"ok"


@pytest.mark.parametrize(
    "answer",
    [
        OK + TE + b"\r\n+2\r\nok\r\n0\r\n\r\n",
        OK + TE + b"\r\n2\nok\r\n0\r\n\r\n",
        OK + TE + b"\r\n2\r\nokay\r\n0\r\n\r\n",
        OK + TE + b"\r\n2;" + b"x" * 4096 + b"\r\nok\r\n0\r\n\r\n",
        OK + TE + b"\r\n2\r\nok\r\n0\r\nA: b\nC: d\r\n\r\n",
        OK + TE + b"\r\n2\r\nok\r\n0\r\nA: " + b"x" * 400_000,
    ],
    ids=["sign", "bare LF", "too long", "extension", "trailer", "trailers without end"],
)
async def test_a_body_that_can_be_read_two_ways_is_cut(cloud: Cloud, answer: bytes) -> None:
    agent = RawAgent(answer)
    cloud.agent(agent)
    client = await cloud.client()
    client.send(request(headers="Connection: close\r\n"))
    got = await soon(client.reader.read())
    assert got.startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 502 "))
    assert not got.endswith(b"0\r\n\r\n")  # the client sees that it is not whole
    await soon(agent.gone.wait())


@pytest.mark.parametrize(
    "head",
    [
        b"A: " + b"x" * 70_000 + b"\r\n",
        b"A: " + b"x" * 200_000 + b"\r\n",
        b"A: b\r\n" * 15_000,
        b"A: " + b"x" * 3_000_000,
    ],
)
@pytest.mark.parametrize("status", [b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 103 Early\r\n"])
async def test_a_head_over_64_kib_is_refused(cloud: Cloud, status: bytes, head: bytes) -> None:
    agent = RawAgent(status + head + b"\r\n" + OK + END)
    cloud.agent(agent)
    assert problem((await cloud.ask(request())).body) == (502, "agent_refused")
    await soon(agent.gone.wait())


@pytest.mark.parametrize("count", [100, 1_000_000])
async def test_a_flood_of_informational_answers_ends(cloud: Cloud, count: int) -> None:
    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(count // 100):
            writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 100)
            await writer.drain()
        writer.write(OK + END)

    cloud.agent(agent)
    client = await cloud.client()
    client.send(request())
    statuses = []
    while (status := (await soon(client.answer())).status) < 200:
        statuses.append(status)
    assert status == 502
    assert len(statuses) == 64


async def test_some_informational_answers_pass(cloud: Cloud) -> None:
    cloud.agent(RawAgent(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 64 + OK + END))
    client = await cloud.client()
    for _ in range(2):  # on the same connection to the agent, so they are counted for each request
        client.send(request())
        assert [(await soon(client.answer())).status for _ in range(65)] == [103] * 64 + [200]


async def test_an_answer_before_the_request_is_nobodys(cloud: Cloud) -> None:
    """With the dial's own answer in one write: that is before our first byte."""

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(OK + b"Content-Length: 6\r\n\r\nforged")
        await reader.read()

    cloud.agent(agent)
    answer = await cloud.ask(request())
    assert problem(answer.body) == (502, "agent_refused")


async def test_an_answer_while_the_connection_is_pooled_is_nobodys(cloud: Cloud) -> None:
    more = asyncio.Event()

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + END)
        await more.wait()
        writer.write(OK + b"Content-Length: 6\r\n\r\nforged")
        assert await reader.read() == b""
        writer.close()

    cloud.agent(agent)
    client = await cloud.client()
    assert (await soon(client.ask(request()))).body == b"ok"
    more.set()
    await until(lambda: not cloud.worker._reach.connections()[0])
    cloud.agent(RawAgent())
    assert (await soon(client.ask(request()))).body == b"ok"


@pytest.mark.parametrize("status", [b"426 Upgrade Required", b"200 OK", b"400 Bad"])
async def test_an_upgrade_that_the_agent_declines_opens_no_tunnel(cloud: Cloud, status: bytes) -> None:
    """WebSocket smuggling: a proxy that did not look at the status took what came next for frames."""
    agent = RawAgent(b"HTTP/1.1 " + status + b"\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + END)
    cloud.agent(agent)
    client = await cloud.client()
    upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 777\r\n"
    client.send(request(headers=upgrade) + request(token="ec_no_no"))
    assert (await soon(client.answer())).status == int(status[:3])
    assert (await soon(client.answer())).status == 401
    assert len(agent.heads) == 1


@pytest.mark.parametrize("headers", ["", "Connection: Upgrade\r\nUpgrade: h2c\r\n", "Upgrade: websocket\r\n"])
async def test_an_agent_cannot_switch_protocols_unasked(cloud: Cloud, headers: str) -> None:
    cloud.agent(RawAgent(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n"))
    assert problem((await cloud.ask(request(headers=headers))).body) == (502, "agent_refused")


async def test_a_body_for_a_head_request_is_not_read_as_the_next_answer(cloud: Cloud) -> None:
    agent = RawAgent(OK + b"Content-Length: 2\r\n\r\n" + OK + b"Content-Length: 6\r\n\r\nforged")
    cloud.agent(agent)
    client = await cloud.client()
    assert (await soon(client.ask(request(method="HEAD"), head_only=True))).header("Content-Length") == "2"
    agent.answer = OK + END
    assert (await soon(client.ask(request()))).body == b"ok"
    assert agent.connections == 2


async def test_no_redirect_is_followed_here(cloud: Cloud) -> None:
    """What the agent says of other places is for the client to go to, never for us."""
    agent = RawAgent(b"HTTP/1.1 307 Go\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\n\r\n")
    cloud.agent(agent)
    answer = await cloud.ask(request())
    assert (answer.status, answer.header("Location")) == (307, "http://169.254.169.254/latest")
    assert len(agent.heads) == len(cloud.tailscaled.dials) == 1


@pytest.mark.parametrize(
    ("location", "by_path", "by_host"),
    [
        ("http://100.64.0.7:2138/login", f"/api/relay/{AGENT}/login", "/login"),
        ("http://100.64.0.8:2138/", None, None),
        ("/api/v1/agents/other", f"/api/relay/{AGENT}/api/v1/agents/other", "/api/v1/agents/other"),
        ("https://relay.test/api/v1/agents/other", f"/api/relay/{AGENT}/api/v1/agents/other", None),
    ],
)
async def test_a_redirect_sends_nobody_into_the_tailnet_or_the_api(
    cloud: Cloud, location: str, by_path: str | None, by_host: str | None
) -> None:
    cloud.agent(RawAgent(f"HTTP/1.1 308 Go\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()))
    assert (await cloud.ask(request(method="DELETE"))).header("Location") == by_path
    if location.startswith("https"):
        return
    raw = f"DELETE / HTTP/1.1\r\nHost: {AGENT}.agents.test\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    assert (await cloud.ask(raw.encode())).header("Location") == by_host
