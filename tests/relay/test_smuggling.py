"""Raw bytes that make two readers of one stream disagree: refused, connection closed, nothing at the agent. Each has a
repaired twin that does reach it."""

import asyncio

import pytest

from tests.relay.conftest import AGENT, TOKEN, Cloud, RawAgent

LINE = f"POST /api/relay/{AGENT}/x HTTP/1.1\r\n".encode()
HEAD = LINE + f"Host: cloud.test\r\nAuthorization: Bearer {TOKEN}\r\n".encode()
TE = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
NEXT = f"GET /api/relay/{AGENT}/smuggled HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()

CASES = {
    "CL.TE": (400, HEAD + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", TE + b"0\r\n\r\n"),
    "TE.CL": (400, HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n", TE + b"0\r\n\r\n"),
    "TE.TE": (400, HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n", TE + b"0\r\n\r\n"),
    "TE x": (400, HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", TE + b"0\r\n\r\n"),
    "TE gzip": (501, HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", TE + b"0\r\n\r\n"),
    "TE identity": (400, HEAD + b"Transfer-Encoding: identity\r\n\r\n", HEAD + b"\r\n"),
    "TE vertical tab": (400, HEAD + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", TE + b"0\r\n\r\n"),
    "TE blank before colon": (400, HEAD + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", TE + b"0\r\n\r\n"),
    "TE with HTTP/1.0": (400, TE.replace(b"1.1", b"1.0") + b"0\r\n\r\n", TE + b"0\r\n\r\n"),
    "two CL": (400, HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab", HEAD + b"Content-Length: 2\r\n\r\nab"),
    "two equal CL": (
        400,
        HEAD + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\nab",
        HEAD + b"Content-Length: 2\r\n\r\nab",
    ),
    "CL list": (400, HEAD + b"Content-Length: 2, 2\r\n\r\nab", HEAD + b"Content-Length: 2\r\n\r\nab"),
    "CL plus": (400, HEAD + b"Content-Length: +2\r\n\r\nab", HEAD + b"Content-Length: 2\r\n\r\nab"),
    "CL minus": (400, HEAD + b"Content-Length: -2\r\n\r\nab", HEAD + b"Content-Length: 2\r\n\r\nab"),
    "CL hex": (400, HEAD + b"Content-Length: 0x2\r\n\r\nab", HEAD + b"Content-Length: 2\r\n\r\nab"),
    "CL empty": (400, HEAD + b"Content-Length:\r\n\r\nab", HEAD + b"Content-Length: 2\r\n\r\nab"),
    "CL huge": (400, HEAD + b"Content-Length: 99999999999999999999999\r\n\r\n", HEAD + b"Content-Length: 0\r\n\r\n"),
    "chunk size sign": (400, TE + b"+1\r\na\r\n0\r\n\r\n", TE + b"1\r\na\r\n0\r\n\r\n"),
    "chunk size hex prefix": (400, TE + b"0x1\r\na\r\n0\r\n\r\n", TE + b"1\r\na\r\n0\r\n\r\n"),
    "chunk size blank": (400, TE + b"1 \r\na\r\n0\r\n\r\n", TE + b"1\r\na\r\n0\r\n\r\n"),
    "chunk size overflow": (400, TE + b"10000000000000001\r\na\r\n0\r\n\r\n", TE + b"1\r\na\r\n0\r\n\r\n"),
    "chunk size bare LF": (400, TE + b"1\na\r\n0\r\n\r\n", TE + b"1\r\na\r\n0\r\n\r\n"),
    "chunk extension LF": (400, TE + b"1;x\na\r\n0\r\n\r\n", TE + b"1;x\r\na\r\n0\r\n\r\n"),
    "chunk extension flood": (400, TE + b"1;" + b"x" * 4096 + b"\r\na\r\n0\r\n\r\n", TE + b"1;x=y\r\na\r\n0\r\n\r\n"),
    "chunk too long": (400, TE + b"1\r\nab\r\n0\r\n\r\n", TE + b"2\r\nab\r\n0\r\n\r\n"),
    "trailer fold": (400, TE + b"0\r\nA: b\r\n c\r\n\r\n", TE + b"0\r\nA: b c\r\n\r\n"),
    "trailer LF": (400, TE + b"0\r\nA: b\nC: d\r\n\r\n", TE + b"0\r\nA: b\r\nC: d\r\n\r\n"),
    "bare LF in the head": (400, HEAD.replace(b"\r\n", b"\n") + b"\n", HEAD + b"\r\n"),
    "one bare LF": (400, HEAD + b"A: b\nC: d\r\n\r\n", HEAD + b"A: b\r\nC: d\r\n\r\n"),
    "bare CR": (400, HEAD + b"A: b\rC: d\r\n\r\n", HEAD + b"A: b\r\n\r\n"),
    "fold": (400, HEAD + b"A: b\r\n c\r\n\r\n", HEAD + b"A: b c\r\n\r\n"),
    "fold at the start": (
        400,
        LINE + b" A: b\r\n" + HEAD[len(LINE) :] + b"\r\n",
        LINE + b"A: b\r\n" + HEAD[len(LINE) :] + b"\r\n",
    ),
    "NUL in a value": (400, HEAD + b"A: b\x00c\r\n\r\n", HEAD + b"A: bc\r\n\r\n"),
    "NUL in a name": (400, HEAD + b"A\x00: b\r\n\r\n", HEAD + b"A: b\r\n\r\n"),
    "no name": (400, HEAD + b": b\r\n\r\n", HEAD + b"A: b\r\n\r\n"),
    "no colon": (400, HEAD + b"A b\r\n\r\n", HEAD + b"A: b\r\n\r\n"),
    "two hosts": (400, HEAD + b"Host: other\r\n\r\n", HEAD + b"\r\n"),
    "no host": (400, HEAD.replace(b"Host: cloud.test\r\n", b"") + b"\r\n", HEAD + b"\r\n"),
    "odd host": (400, HEAD.replace(b"cloud.test", b"a@cloud.test") + b"\r\n", HEAD + b"\r\n"),
    "target names another host": (
        400,
        HEAD.replace(b" /api", b" http://other.test/api", 1) + b"\r\n",
        HEAD.replace(b" /api", b" http://cloud.test/api", 1) + b"\r\n",
    ),
    "two blanks": (400, HEAD.replace(b"POST ", b"POST  ", 1) + b"\r\n", HEAD + b"\r\n"),
    "tab": (400, HEAD.replace(b"POST ", b"POST\t", 1) + b"\r\n", HEAD + b"\r\n"),
    "blank in the target": (
        400,
        HEAD.replace(b"/x ", b"/x y ", 1) + b"\r\n",
        HEAD.replace(b"/x ", b"/x%20y ", 1) + b"\r\n",
    ),
    "blank after the version": (400, HEAD.replace(b"HTTP/1.1", b"HTTP/1.1 ", 1) + b"\r\n", HEAD + b"\r\n"),
    "HTTP/0.9": (400, f"GET /api/relay/{AGENT}/x\r\n\r\n".encode(), HEAD + b"\r\n"),
    "HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HEAD + b"\r\n"),
    "HTTP/1.2": (505, HEAD.replace(b"1.1", b"1.2", 1) + b"\r\n", HEAD + b"\r\n"),
    "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", HEAD + b"\r\n"),
    "CONNECT": (405, b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", HEAD + b"\r\n"),
    "TRACE": (405, HEAD.replace(b"POST", b"TRACE", 1) + b"\r\n", HEAD + b"\r\n"),
    "headers too large": (
        431,
        HEAD + b"A: " + b"x" * 70_000 + b"\r\n\r\n",
        HEAD + b"A: " + b"x" * 30_000 + b"\r\n\r\n",
    ),
    "too many headers": (431, HEAD + b"A: b\r\n" * 20_000 + b"\r\n", HEAD + b"A: b\r\n" * 1000 + b"\r\n"),
    "target too long": (414, b"GET /" + b"x" * 80_000, HEAD.replace(b"/x ", b"/" + b"x" * 30_000 + b" ", 1) + b"\r\n"),
}


@pytest.mark.parametrize("case", CASES)
async def test_what_can_be_read_two_ways_is_refused(cloud: Cloud, case: str) -> None:
    status, raw, _ = CASES[case]
    agent = RawAgent()
    cloud.agent(agent)
    client = await cloud.client()
    client.send(raw + NEXT)
    async with asyncio.timeout(20):
        answer = await client.answer()
        assert (answer.status, answer.header("Connection")) == (status, "close")
        assert await client.at_end()
    assert not any(b"smuggled" in head for head in agent.heads)
    assert cloud.api.heads == []


@pytest.mark.parametrize("case", CASES)
async def test_its_repaired_twin_reaches_the_agent(cloud: Cloud, case: str) -> None:
    _, _, repaired = CASES[case]
    got = asyncio.Event()

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"chunked" in head:
            while not (await reader.readuntil(b"\r\n")).startswith(b"0"):
                pass
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass
        elif b"Content-Length: 2" in head:
            await reader.readexactly(2)
        got.set()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    cloud.agent(agent)
    client = await cloud.client()
    async with asyncio.timeout(20):
        assert (await client.ask(repaired)).status == 200
    assert got.is_set()


async def test_a_body_that_looks_like_a_request_is_a_body(cloud: Cloud) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    client = await cloud.client()
    await client.ask(HEAD + b"Content-Length: %d\r\n\r\n" % len(NEXT) + NEXT)
    # The raw agent reads heads only, so it sees the body as its next head: by our count there was one request.
    assert cloud.metrics.requests["agent", "2xx"] == 1


async def test_after_an_early_answer_nothing_of_the_body_is_a_request(cloud: Cloud) -> None:
    agent = RawAgent(b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\nno")
    cloud.agent(agent)
    client = await cloud.client()
    client.send(HEAD + b"Content-Length: 100000\r\n\r\n")
    answer = await client.answer()
    assert (answer.status, answer.header("Connection")) == (403, "close")
    client.send(NEXT * 3)
    assert await client.at_end()
    assert len(agent.heads) == 1
    assert cloud.metrics.requests["agent", "4xx"] == 1


async def test_bytes_after_an_upgrade_that_was_not_granted_are_a_request_of_their_own(cloud: Cloud) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    client = await cloud.client()
    client.send(HEAD.replace(b"POST", b"GET") + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    client.send(NEXT.replace(TOKEN.encode(), b"ec_no_no"))
    assert (await client.answer()).status == 200
    assert (await client.answer()).status == 401
    assert len(agent.heads) == 1


@pytest.mark.parametrize(
    "raw", [b"\r\n" + HEAD + b"\r\n", HEAD + b"A: \xff\xfe\r\n\r\n", HEAD + b"A:\r\nB:  \t \r\n\r\n"]
)
async def test_what_is_odd_but_clear_passes(cloud: Cloud, raw: bytes) -> None:
    cloud.agent(RawAgent())
    assert (await cloud.ask(raw)).status == 200


@pytest.mark.parametrize("step", [1, 2, 3])
async def test_requests_may_come_in_any_pieces(cloud: Cloud, step: int) -> None:
    cloud.agent(RawAgent())
    client = await cloud.client()
    raw = HEAD + b"\r\n"
    for at in range(0, len(raw), step):
        client.send(raw[at : at + step])
        await asyncio.sleep(0)
    assert (await client.answer()).status == 200
