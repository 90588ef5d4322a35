"""Black box: a worker over real sockets, an agent behind a fake tailscaled, raw bytes at both ends."""

import asyncio
import contextlib
import json
from pathlib import Path

import pytest

from elizacloud.relay.headers.hygiene import ERROR_HEADER
from tests.relay.conftest import (
    AGENT,
    BOUND_TOKEN,
    EXPIRED_TOKEN,
    IP,
    OTHER_AGENT,
    SERVICE_TOKEN,
    STRANGERS_TOKEN,
    TOKEN,
    Cloud,
    RawAgent,
    asleep,
    refuse,
    request,
    soon,
    until,
    upstream,
)

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter
CHUNKED = "Transfer-Encoding: chunked\r\n"


def ok(body: bytes = b"ok", headers: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (headers, len(body), body)


async def test_a_request_reaches_the_agent_and_its_answer_comes_back(cloud: Cloud) -> None:
    agent = RawAgent(b"HTTP/1.1 201 Made\r\nContent-Length: 5\r\nX-From: agent\r\n\r\nhello")
    cloud.agent(agent)
    answer = await cloud.ask(request("/api/health?deep=1"))
    assert (answer.status, answer.body, answer.header("X-From")) == (201, b"hello", "agent")
    assert answer.head.startswith(b"HTTP/1.1 201 Made\r\n")
    assert answer.header("Elizacloud-Error") is None
    assert agent.lines[0] == b"GET /api/health?deep=1 HTTP/1.1"
    assert b"Host: " + f"{IP}:2138".encode() in agent.lines
    assert b"Authorization: Bearer eca_agentsowntoken" in agent.lines
    assert b"X-Forwarded-For: 127.0.0.1" in agent.lines
    assert b"X-Forwarded-Host: relay.test" in agent.lines
    assert b"X-Forwarded-Prefix: /api/relay/" + AGENT.encode() in agent.lines
    assert cloud.tailscaled.dials == [f"{IP}:2138"]


async def test_an_agents_own_host_is_a_front_too(cloud: Cloud) -> None:
    agent = RawAgent(ok(headers=b"Set-Cookie: a=1\r\n"))
    cloud.agent(agent)
    answer = await cloud.ask(
        f"GET /ws?x HTTP/1.1\r\nHost: {AGENT}.agents.test:1\r\nAuthorization: Bearer {TOKEN}\r\nCookie: a=1\r\n\r\n".encode()
    )
    assert (answer.status, answer.header("Set-Cookie")) == (200, "a=1")
    assert agent.lines[0] == b"GET /ws?x HTTP/1.1"
    assert b"Cookie: a=1" in agent.lines


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "BREW", "x-odd"])
async def test_any_method_passes(cloud: Cloud, method: str) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    assert (await cloud.ask(request(method=method))).status == 200
    assert agent.lines[0] == f"{method} / HTTP/1.1".encode()


@pytest.mark.parametrize(
    "target", ["/a%2Fb%00/../c//;p?q=1&r[]=%20&s=a+b", "//", "/.", "/%", "/?", "/\"<>^`{|}~'", "/a#b"]
)
async def test_the_target_passes_byte_for_byte(cloud: Cloud, target: str) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    assert (await cloud.ask(request(target))).status == 200
    assert agent.lines[0] == f"GET {target} HTTP/1.1".encode()


async def test_head_has_the_length_but_no_body(cloud: Cloud) -> None:
    cloud.agent(RawAgent(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"))
    client = await cloud.client()
    for _ in range(2):
        answer = await client.ask(request(method="HEAD"), head_only=True)
        assert (answer.status, answer.header("Content-Length")) == (200, "1000")
    assert len(cloud.tailscaled.dials) == 1


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body_keep_both_connections(cloud: Cloud, status: int) -> None:
    agent = RawAgent(b"HTTP/1.1 %d Empty\r\nETag: x\r\n\r\n" % status)
    cloud.agent(agent)
    client = await cloud.client()
    for _ in range(2):
        answer = await client.ask(request())
        assert (answer.status, answer.header("ETag"), answer.header("Content-Length")) == (status, "x", None)
    assert agent.connections == 1


async def test_connections_are_used_again_on_both_sides(cloud: Cloud) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    client = await cloud.client()
    for _ in range(5):
        assert (await client.ask(request())).body == b"ok"
    assert (agent.connections, len(agent.heads)) == (1, 5)


async def test_pipelined_requests_are_answered_in_order(cloud: Cloud) -> None:
    async def agent(reader: Reader, writer: Writer) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(ok(head.split(b" ")[1]))

    cloud.agent(agent)
    client = await cloud.client()
    client.send(
        b"".join(request(f"/{number}") for number in range(50)) + request("/last", headers="Connection: close\r\n")
    )
    assert [(await soon(client.answer())).body for _ in range(51)] == [b"/%d" % number for number in range(50)] + [
        b"/last"
    ]
    assert await client.at_end()


async def test_bodies_stream_both_ways(cloud: Cloud) -> None:
    """Each side waits for the other's piece, so nothing may be kept back on the way."""

    async def agent(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            assert await reader.readuntil(b"\r\n") == b"4\r\n"
            writer.write(b"6\r\nre " + (await reader.readexactly(6))[:3] + b"\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"0\r\n\r\n"
        writer.write(b"0\r\n\r\n")

    cloud.agent(agent)
    client = await cloud.client()
    client.send(request(method="POST", headers=CHUNKED))
    await client.reader.readuntil(b"\r\n\r\n")
    for piece in (b"one!", b"two!", b"six!"):
        client.send(b"4;x=y\r\n" + piece + b"\r\n")
        assert await client.reader.readexactly(11) == b"6\r\nre " + piece[:3] + b"\r\n"
    client.send(b"0\r\n\r\n")
    assert await client.reader.readexactly(5) == b"0\r\n\r\n"
    cloud.agent(RawAgent())
    assert (await client.ask(request())).body == b"ok"


async def test_server_sent_events_are_not_held_back(cloud: Cloud) -> None:
    heard = asyncio.Event()

    async def agent(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        for number in range(3):
            writer.write(b"data: %d\n\n" % number)
            await soon(heard.wait())
            heard.clear()
        writer.close()

    cloud.agent(agent)
    client = await cloud.client()
    client.send(request("/events"))
    assert b"Transfer-Encoding: chunked" in await client.reader.readuntil(b"\r\n\r\n")
    for number in range(3):
        assert await client.reader.readexactly(14) == b"9\r\ndata: %d\n\n\r\n" % number
        heard.set()
    assert await client.reader.readexactly(5) == b"0\r\n\r\n"


async def test_the_length_of_an_upload_and_its_bytes_pass(cloud: Cloud) -> None:
    body = bytes(range(256)) * 4096

    async def agent(reader: Reader, writer: Writer) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: %d\r\n" % len(body) in head
        writer.write(ok(await reader.readexactly(len(body))))

    cloud.agent(agent)
    answer = await cloud.ask(request(method="POST", headers=f"Content-Length: {len(body)}\r\n", body=body))
    assert answer.body == body


async def test_trailers_pass_both_ways(cloud: Cloud) -> None:
    async def agent(reader: Reader, writer: Writer) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"TE: trailers\r\n" in head
        assert await reader.readuntil(b"\r\n\r\n") == b"2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n"
        writer.write(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nyo\r\n0\r\nX-Back: 2\r\nSet-Cookie: a\r\n\r\n"
        )

    cloud.agent(agent)
    client = await cloud.client()
    client.send(
        request(
            method="POST", headers=CHUNKED + "TE: trailers\r\n", body=b"2\r\nhi\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n\r\n"
        )
    )
    await client.reader.readuntil(b"\r\n\r\n")
    assert await client.reader.readuntil(b"\r\n\r\n") == b"2\r\nyo\r\n0\r\nX-Back: 2\r\n\r\n"


async def test_expect_and_informational_answers_pass(cloud: Cloud) -> None:
    async def agent(reader: Reader, writer: Writer) -> None:
        assert b"Expect: 100-continue\r\n" in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        writer.write(ok(await reader.readexactly(5)))

    cloud.agent(agent)
    client = await cloud.client()
    client.send(request(method="PUT", headers="Expect: 100-continue\r\nContent-Length: 5\r\n"))
    early = await soon(client.answer())
    assert (early.status, early.header("Link")) == (103, "</a>")
    assert (await soon(client.answer())).status == 100
    assert (await client.ask(b"hello")).body == b"hello"


async def test_http_1_0_clients_get_what_they_understand(cloud: Cloud) -> None:
    cloud.agent(
        RawAgent(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
        )
    )
    client = await cloud.client()
    answer = await client.ask(f"GET /api/relay/{AGENT}/ HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    assert (answer.status, answer.body) == (200, b"hi")
    assert answer.header("Transfer-Encoding") is None


async def test_http_1_0_keep_alive_is_honoured(cloud: Cloud) -> None:
    cloud.agent(RawAgent())
    client = await cloud.client()
    for _ in range(2):
        answer = await client.ask(
            f"GET /api/relay/{AGENT}/ HTTP/1.0\r\nAuthorization: Bearer {TOKEN}\r\nConnection: keep-alive\r\n\r\n".encode()
        )
        assert (answer.header("Connection"), answer.body) == ("keep-alive", b"ok")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nbig",
    ],
)
async def test_an_early_answer_to_an_upload_is_kept(cloud: Cloud, answer: bytes) -> None:
    async def agent(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()  # with most of the upload unread, which resets the connection

    cloud.agent(agent)
    for _ in range(10):
        client = await cloud.client()
        client.send(request(method="POST", headers="Content-Length: 5000000\r\n", body=b"x" * 200_000))
        async with asyncio.timeout(20):
            got = await soon(client.answer())
        assert (got.status, got.body) == (int(answer[9:12]), b"big")
        assert got.header("Connection") == "close"
        client.close()


async def test_a_client_that_leaves_ends_the_request_at_the_agent(cloud: Cloud) -> None:
    agent = RawAgent(b"HTTP/1.1 200 OK\r\n\r\nsome of it")
    cloud.agent(agent)
    client = await cloud.client()
    client.send(request("/stream"))
    await client.reader.readuntil(b"some of it")
    client.close()
    async with asyncio.timeout(20):
        await soon(agent.gone.wait())
        await until(lambda: cloud.metrics.in_flight == 0)


async def test_a_client_that_leaves_its_upload_ends_the_request_at_the_agent(cloud: Cloud) -> None:
    seen = asyncio.Event()
    gone = asyncio.Event()

    async def agent(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"hello")
        seen.set()
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        gone.set()

    cloud.agent(agent)
    client = await cloud.client()
    client.send(request(method="POST", headers="Content-Length: 100\r\n", body=b"hello"))
    await soon(seen.wait())
    client.writer.transport.abort()
    async with asyncio.timeout(20):
        await soon(gone.wait())


@pytest.mark.parametrize(
    "part",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive!",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfive!\r\n",
    ],
)
async def test_an_answer_that_is_cut_short_looks_cut_short(cloud: Cloud, part: bytes) -> None:
    async def agent(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(part)
        await writer.drain()
        writer.close()

    cloud.agent(agent)
    client = await cloud.client()
    client.send(request())
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await soon(client.answer())
    assert cloud.metrics.requests["agent", "cut_short"] == 1


async def test_a_slow_reader_slows_the_agent_down(cloud: Cloud) -> None:
    sent = 0
    stuck = asyncio.Event()

    async def agent(reader: Reader, writer: Writer) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n")
        for _ in range(2000):
            writer.write(b"x" * 100_000)
            try:
                async with asyncio.timeout(0.5):
                    await writer.drain()
            except TimeoutError:
                stuck.set()
                await writer.drain()
            sent += 100_000

    cloud.agent(agent)
    client = await cloud.client()
    client.send(request())
    await client.reader.readuntil(b"\r\n\r\n")
    await soon(stuck.wait())
    assert sent < 40_000_000
    left = 200_000_000
    while left:
        left -= len(await client.reader.read(1 << 20))
    assert (await client.ask(request("/x"))).status in (200, 502)


async def test_a_slow_agent_slows_the_upload_down(cloud: Cloud) -> None:
    go_on = asyncio.Event()
    size = 100_000_000

    async def agent(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await soon(go_on.wait())
        left = size
        while left:
            left -= len(await reader.read(1 << 20))
        writer.write(ok())

    cloud.agent(agent)
    client = await cloud.client()
    client.send(request(method="POST", headers=f"Content-Length: {size}\r\n"))
    sent = 0
    while sent < size:
        client.send(b"x" * 1_000_000)
        sent += 1_000_000
        try:
            async with asyncio.timeout(0.5):
                await client.writer.drain()
        except TimeoutError:
            break
    assert sent < 40_000_000
    go_on.set()
    client.send(b"x" * (size - sent))
    assert (await soon(client.answer())).body == b"ok"


# Answers of its own


def problem(body: bytes) -> tuple[int, str]:
    answer = json.loads(body)
    assert set(answer) == {"type", "title", "status", "code", "detail"}
    return answer["status"], answer["code"]


@pytest.mark.parametrize(
    ("token", "status", "code"),
    [
        ("", 401, "no_credential"),
        ("ec_unknown00001_secret", 401, "invalid_token"),
        (EXPIRED_TOKEN, 401, "expired_token"),
        (STRANGERS_TOKEN, 404, "agent_not_found"),
        (BOUND_TOKEN, 404, "agent_not_found"),
        (SERVICE_TOKEN, 404, "agent_not_found"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "OPTIONS", "POST", "BREW"])
async def test_who_may_not_reach_an_agent_does_not(
    cloud: Cloud, token: str, status: int, code: str, method: str
) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    raw = request(method=method, token=token)
    answer = await cloud.ask(raw if token else raw.replace(b"Authorization: Bearer \r\n", b""))
    assert (answer.status, answer.header("Elizacloud-Error")) == (status, code)
    assert problem(answer.body) == (status, code)
    assert answer.header("Content-Type") == "application/problem+json"
    assert (answer.header("WWW-Authenticate") is not None) == (status == 401)
    assert agent.heads == []


async def test_somebody_elses_agent_looks_like_one_that_does_not_exist(cloud: Cloud) -> None:
    theirs = await cloud.ask(request(token=STRANGERS_TOKEN))
    absent = await cloud.ask(request(agent="kagent0000009999"))
    assert theirs.body.replace(AGENT.encode(), b"?") == absent.body.replace(b"kagent0000009999", b"?")


async def test_a_service_token_acts_for_the_owner_it_names(cloud: Cloud) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    assert (await cloud.ask(request(token=SERVICE_TOKEN, headers="Elizacloud-Owner: owner\r\n"))).status == 200
    assert (await cloud.ask(request(token=SERVICE_TOKEN, headers="Elizacloud-Owner: other\r\n"))).status == 404
    assert (await cloud.ask(request(headers="Elizacloud-Owner: other\r\n"))).status == 403
    assert not any(b"laizacloud-owner" in head.lower() for head in agent.heads)


@pytest.mark.parametrize("twice", ["Authorization: Bearer x\r\n", "Elizacloud-Owner: a\r\nElizacloud-Owner: b\r\n"])
async def test_two_credentials_are_refused(cloud: Cloud, twice: str) -> None:
    assert (await cloud.ask(request(headers=twice))).status == 401


async def test_an_upgrade_needs_a_credential_too(cloud: Cloud) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    raw = f"GET /ws?token={TOKEN} HTTP/1.1\r\nHost: {AGENT}.agents.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    assert (await cloud.ask(raw.encode())).status == 401
    assert agent.heads == []


async def test_a_revoked_token_is_refused_at_once(cloud: Cloud) -> None:
    cloud.agent(RawAgent())
    client = await cloud.client()
    assert (await client.ask(request())).status == 200
    cloud.hub.revoke_token("tokenid00001")
    await cloud.told()
    assert (await client.ask(request())).status == 401


async def test_an_answer_of_our_own_keeps_the_connection(cloud: Cloud) -> None:
    cloud.agent(RawAgent())
    client = await cloud.client()
    assert (await client.ask(request(token="ec_no_no"))).status == 401
    assert (await client.ask(request())).status == 200


async def test_a_refused_upload_is_answered_and_the_rest_thrown_away(cloud: Cloud) -> None:
    client = await cloud.client()
    client.send(request(method="POST", token="ec_no_no", headers="Content-Length: 3000000\r\n", body=b"x" * 1_000_000))
    answer = await soon(client.answer())
    assert (answer.status, answer.header("Connection")) == (401, "close")
    client.send(b"x" * 1_000_000)
    assert await client.at_end()


async def test_an_agent_cannot_forge_our_answers(cloud: Cloud) -> None:
    cloud.agent(RawAgent(ok(headers=b"%b: x\r\n" % ERROR_HEADER)))
    assert (await cloud.ask(request())).header("Elizacloud-Error") is None


async def test_an_agent_where_nothing_listens(cloud: Cloud) -> None:
    cloud.agent(refuse)
    answer = await cloud.ask(request())
    assert (answer.status, *problem(answer.body)) == (502, 502, "agent_refused")


async def test_an_agent_that_closes_without_an_answer(cloud: Cloud) -> None:
    """With `tailscale serve` this is how a dead agent looks (lab.md)."""

    async def agent(reader: Reader, writer: Writer) -> None:
        writer.close()

    cloud.agent(agent)
    answer = await cloud.ask(request())
    assert problem(answer.body) == (502, "agent_refused")


@pytest.mark.parametrize(
    "answer", [b"rubbish\r\n\r\n", b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", b"HTTP/1.1 101 Now\r\n\r\n", b"x" * 70_000]
)
async def test_an_agent_that_does_not_speak_http(cloud: Cloud, answer: bytes) -> None:
    cloud.agent(RawAgent(answer))
    assert problem((await cloud.ask(request())).body) == (502, "agent_refused")


async def test_an_answer_that_nobody_asked_for_is_never_given_to_the_next(cloud: Cloud) -> None:
    agent = RawAgent(ok(b"first") + ok(b"smuggled"))
    cloud.agent(agent)
    client = await cloud.client()
    assert (await client.ask(request("/1"))).body == b"first"
    assert (await client.ask(request("/2"))).body == b"first"
    assert agent.connections == 2


async def test_a_pooled_connection_that_closed_is_no_error(cloud: Cloud) -> None:
    served = 0

    async def agent(reader: Reader, writer: Writer) -> None:
        nonlocal served
        served += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ok())
        if served == 1:
            await reader.readuntil(b"\r\n\r\n")  # closes on the second request, unanswered
        writer.close()

    cloud.agent(agent)
    client = await cloud.client()
    assert (await client.ask(request())).status == 200
    assert (await client.ask(request())).status == 200
    assert served == 2


async def test_a_request_that_may_have_done_something_is_not_repeated(cloud: Cloud) -> None:
    async def agent(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(ok())
        await reader.readuntil(b"\r\n\r\n")
        writer.close()

    cloud.agent(agent)
    client = await cloud.client()
    assert (await client.ask(request())).status == 200
    assert (await client.ask(request(method="POST"))).status == 502
    assert len(cloud.tailscaled.dials) == 1


# Deadlines


async def test_a_dial_that_hangs_ends_at_its_deadline(run_dir: Path) -> None:
    async with Cloud(run_dir).running(dial_timeout_seconds=0.05) as cloud:
        cloud.tailscaled.hold.clear()
        assert problem((await cloud.ask(request())).body) == (504, "agent_timeout")


async def test_an_agent_that_does_not_begin_to_answer_ends_at_its_deadline(run_dir: Path) -> None:
    agent = RawAgent(b"")
    async with Cloud(run_dir).running(first_byte_timeout_seconds=0.05) as cloud:
        cloud.agent(agent)
        assert problem((await cloud.ask(request())).body) == (504, "agent_timeout")
        await soon(agent.gone.wait())


async def test_no_deadline_cuts_an_answer_that_has_begun(run_dir: Path) -> None:
    async def agent(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.read()
        writer.write(b"late")
        writer.close()

    async with Cloud(run_dir).running(first_byte_timeout_seconds=0.05, headers_timeout_seconds=0.05) as cloud:
        cloud.agent(agent)
        assert (await cloud.ask(request())).body == b"late"


async def test_headers_that_do_not_come_end_at_their_deadline(run_dir: Path) -> None:
    async with Cloud(run_dir).running(headers_timeout_seconds=0.05) as cloud:
        client = await cloud.client()
        answer = await client.ask(b"GET / HTTP/1.1\r\nHost: ")
        assert problem(answer.body) == (408, "request_timeout")
        assert await client.at_end()
        silent = await cloud.client()
        assert await silent.at_end()


# Coming up, going down


async def test_a_request_is_held_while_the_agent_comes_up(cloud: Cloud) -> None:
    cloud.agent(RawAgent())
    cloud.hub.describe([asleep(state="joined")])
    await cloud.told()
    client = await cloud.client()
    client.send(request())
    await until(lambda: cloud.metrics.in_flight == 1)
    cloud.hub.publish(upstream())
    assert (await soon(client.answer())).status == 200


async def test_a_held_request_ends_at_its_deadline(run_dir: Path) -> None:
    async with Cloud(run_dir).running(wake_hold_seconds=0.05) as cloud:
        cloud.hub.describe([asleep(state="started")])
        await cloud.told()
        answer = await cloud.ask(request())
        assert problem(answer.body) == (503, "agent_starting")
        assert answer.header("Retry-After") == "2"


async def test_a_sleeping_agent_is_woken_once(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elizacloud.relay.wakes._AGAIN_SECONDS", 3600.0)
    cloud.agent(RawAgent())
    cloud.hub.describe([asleep(wakeable=True)])
    await cloud.told()
    clients = [await cloud.client() for _ in range(3)]
    for client in clients:
        client.send(request())
    await until(lambda: cloud.metrics.in_flight == 3 and bool(cloud.heard.wakes))
    cloud.hub.describe([asleep(OTHER_AGENT)])  # other news is no reason to ask again
    await cloud.told()
    cloud.hub.publish(upstream())
    assert [(await soon(client.answer())).status for client in clients] == [200, 200, 200]
    assert cloud.heard.wakes == [AGENT]


@pytest.mark.parametrize("state", ["stopped", "paused", "stopping", "deleting"])
async def test_an_agent_that_will_not_come_is_said_at_once(cloud: Cloud, state: str) -> None:
    cloud.hub.describe([asleep(state=state)])
    await cloud.told()
    assert problem((await cloud.ask(request())).body) == (503, "agent_unroutable")
    assert (await cloud.ask(request(token=STRANGERS_TOKEN))).status == 404


async def test_an_agent_that_goes_while_a_request_is_held_is_not_found(cloud: Cloud) -> None:
    cloud.hub.describe([asleep(state="joined")])
    await cloud.told()
    client = await cloud.client()
    client.send(request())
    await until(lambda: cloud.metrics.in_flight == 1)
    cloud.hub.describe([asleep(state="deleting")])
    await cloud.hub.withdraw(AGENT, within_seconds=0.05)
    assert (await soon(client.answer())).status in (404, 503)


async def test_only_probes_reach_an_upstream_that_is_not_routable(run_dir: Path) -> None:
    agent = RawAgent(ok(b'{"ready":true}'))
    async with Cloud(run_dir).running(wake_hold_seconds=0.05) as cloud:
        cloud.agent(agent)
        cloud.hub.publish(upstream(routable=False))
        await cloud.told()
        assert problem((await cloud.ask(request())).body) == (503, "agent_starting")
        assert agent.heads == []
        assert (await cloud.hub.probe(upstream(), within_seconds=20)).ready is True


async def test_withdraw_waits_for_what_is_in_flight(cloud: Cloud) -> None:
    go_on = asyncio.Event()

    async def agent(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await soon(go_on.wait())
        writer.write(ok())

    cloud.agent(agent)
    client = await cloud.client()
    client.send(request())
    await soon(cloud.tailscaled.dialled.wait())
    asked = asyncio.create_task(cloud.hub.withdraw(AGENT, within_seconds=10))
    await until(lambda: AGENT not in cloud.link.table.upstreams)
    assert (await cloud.ask(request())).status == 404
    assert not asked.done()
    go_on.set()
    assert (await soon(client.answer())).status == 200
    assert await asked is True


async def test_what_is_pooled_for_an_earlier_run_is_never_used_for_the_next(cloud: Cloud) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    client = await cloud.client()
    await client.ask(request())
    cloud.hub.publish(upstream(run=2))
    await cloud.told()
    await soon(agent.gone.wait())
    assert (await client.ask(request())).status == 200
    assert agent.connections == 2


async def test_agents_stay_reachable_without_the_control_plane(run_dir: Path) -> None:
    cloud = Cloud(run_dir)
    async with cloud.running():
        cloud.agent(RawAgent())
        for worker in tuple(cloud.hub._workers.values()):
            worker.cut("outage")
        (run_dir / "link").unlink()
        await until(lambda: not cloud.link.linked)
        assert (await cloud.ask(request())).status == 200
        cloud.link._grace_seconds = -1.0
        assert problem((await cloud.ask(request())).body) == (503, "control_plane_unavailable")


async def test_a_drained_worker_finishes_and_closes(run_dir: Path) -> None:
    go_on = asyncio.Event()

    async def agent(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await soon(go_on.wait())
        writer.write(ok())

    async with Cloud(run_dir).running() as cloud:
        cloud.agent(agent)
        idle, busy = await cloud.client(), await cloud.client()
        busy.send(request())
        await soon(cloud.tailscaled.dialled.wait())
        draining = asyncio.create_task(cloud.worker.drain())
        assert await idle.at_end()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", cloud.port)
        go_on.set()
        answer = await busy.answer()
        assert (answer.status, answer.header("Connection")) == (200, "close")
        assert await draining is True


async def test_a_drain_that_takes_too_long_says_so(run_dir: Path) -> None:
    async with Cloud(run_dir).running(drain_seconds=0.05) as cloud:
        cloud.agent(RawAgent(b""))
        client = await cloud.client()
        client.send(request())
        await soon(cloud.tailscaled.dialled.wait())
        assert await cloud.worker.drain() is False


# The front door to the API


async def test_all_else_goes_to_the_api(cloud: Cloud) -> None:
    answer = await cloud.ask(
        b"POST /api/v1/agents?x=%2F HTTP/1.1\r\nHost: cloud.test\r\nAuthorization: Bearer ec_x\r\nElizacloud-Owner: u\r\n"
        b"X-Forwarded-For: 6.6.6.6\r\nContent-Length: 0\r\n\r\n"
    )
    assert (answer.status, answer.body) == (200, b"api")
    ours = (b"X-Request-Id: ", b"traceparent: ")
    assert [line for line in cloud.api.lines if not line.startswith(ours)] == [
        b"POST /api/v1/agents?x=%2F HTTP/1.1",
        b"Host: cloud.test",
        b"Authorization: Bearer ec_x",
        b"Elizacloud-Owner: u",
        b"X-Forwarded-For: 127.0.0.1",
        b"X-Forwarded-Proto: http",
        b"X-Forwarded-Host: cloud.test",
        b"Content-Length: 0",
    ]


async def test_without_a_control_plane_the_api_says_so(cloud: Cloud) -> None:
    (cloud.run_dir / "api").unlink()
    answer = await cloud.ask(b"GET /api/v1/agents HTTP/1.1\r\nHost: cloud.test\r\n\r\n")
    assert problem(answer.body) == (503, "control_plane_unavailable")


async def test_one_connection_may_go_to_both(cloud: Cloud) -> None:
    cloud.agent(RawAgent())
    client = await cloud.client()
    assert (await client.ask(request())).body == b"ok"
    assert (await client.ask(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")).body == b"api"
    assert (await client.ask(request())).body == b"ok"


async def test_an_unknown_agents_host_is_never_the_api(cloud: Cloud) -> None:
    for host in (f"{OTHER_AGENT}.agents.test", "api.agents.test"):
        answer = await cloud.ask(
            f"GET /healthz HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
        )
        assert answer.status == 404
    assert cloud.api.heads == []
