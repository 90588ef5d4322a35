"""Behind a proxy that rewrites a platform's own paths to us: what streams still streams, and only its word counts."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from websockets.asyncio.server import ServerConnection, unix_serve

from elizacloud.relay.limits import LimitSettings
from tests.fakes.nginx import NGINX, Nginx
from tests.fakes.rewriting_proxy import HOST, RewritingProxy
from tests.relay.browsers import COOKIE, by_host, signed_in
from tests.relay.browsers import HOST as AGENTS_HOST
from tests.relay.conftest import AGENT, TOKEN, Answer, Cloud, RawAgent, RawClient, request, soon, to_unix, until

CLIENT = "127.0.0.2"
"""The address of clients: not the proxy's, which is the only trusted one."""
ORIGIN = "https://app.test"
PATIENCE_SECONDS = 1.2
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"

Reader = asyncio.StreamReader
Writer = asyncio.StreamWriter


class Front:
    """A worker with the proxy in front of it."""

    def __init__(self, cloud: Cloud, proxy: RewritingProxy | Nginx) -> None:
        self.cloud = cloud
        self.proxy = proxy

    async def client(self) -> RawClient:
        streams = await asyncio.open_connection("127.0.0.1", self.proxy.port, local_addr=(CLIENT, 0))
        client = RawClient(*streams)
        self.cloud._clients.append(client)
        return client

    async def ask(self, data: bytes) -> Answer:
        client = await self.client()
        answer = await soon(client.ask(data))
        client.close()
        return answer


@asynccontextmanager
async def fronted(
    run_dir: Path,
    *,
    trusted: bool = True,
    keep_host: bool = False,
    limits: LimitSettings | None = None,
    nginx: bool = False,
) -> AsyncIterator[Front]:
    options: dict[str, object] = {"limits": limits} if limits else {}
    if trusted:
        options["trusted_proxies"] = ("127.0.0.1/32",)
    async with Cloud(run_dir).running(cors_origins=(ORIGIN,), **options) as cloud:
        proxy = (
            Nginx(cloud.port, run_dir, read_timeout_seconds=PATIENCE_SECONDS)
            if nginx
            else RewritingProxy(cloud.port, read_timeout_seconds=PATIENCE_SECONDS, keep_host=keep_host)
        )
        async with proxy.running():
            yield Front(cloud, proxy)


@pytest.fixture(params=["platform", "nginx"])
async def front(run_dir: Path, request: pytest.FixtureRequest) -> AsyncIterator[Front]:
    if request.param == "nginx" and NGINX is None:
        pytest.skip("nginx is not installed")
    async with fronted(run_dir, nginx=request.param == "nginx") as front:
        yield front


async def silence(reader: Reader, seconds: float) -> bool:
    """Wait; False when the other end left meanwhile."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            return await reader.read() != b""
    return True


async def test_paths_are_rewritten_and_the_rest_is_the_platforms_own(front: Front) -> None:
    agent = RawAgent()
    front.cloud.agent(agent)
    assert (await front.ask(request("/a%2Fb//c?x=%20"))).body == b"ok"
    assert agent.lines[0] == b"GET /a%2Fb//c?x=%20 HTTP/1.1"
    assert (await front.ask(b"GET /api/v1/agents HTTP/1.1\r\nHost: x\r\n\r\n")).body == b"api"
    assert (await front.ask(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")).body == b"the platform's own page"
    assert front.cloud.metrics.clients == 1  # kept, for the API and for agents alike


async def test_events_arrive_one_by_one(front: Front) -> None:
    heard = asyncio.Event()

    async def agent(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(EVENTS)
        for number in range(3):
            writer.write(b"data: %d\n\n" % number)
            await soon(heard.wait())
            heard.clear()
        writer.close()

    front.cloud.agent(agent)
    client = await front.client()
    client.send(request("/events"))
    for number in range(3):
        await soon(client.reader.readuntil(b"data: %d\n\n" % number))
        heard.set()
    assert await soon(client.reader.readuntil(b"0\r\n\r\n"))


@pytest.mark.parametrize("heartbeats", [True, False])
async def test_a_quiet_stream_lives_by_its_heartbeats(front: Front, heartbeats: bool) -> None:
    """The platform gives up what is silent for too long. What the agent says to prevent that is not held back here."""

    async def agent(reader: Reader, writer: Writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(EVENTS)
        for _ in range(10):
            if not await silence(reader, PATIENCE_SECONDS / 4):
                break
            if heartbeats:
                writer.write(b": still here\n\n")
        writer.write(b"data: at last\n\n")
        writer.close()

    front.cloud.agent(agent)
    client = await front.client()
    client.send(request("/events"))
    got = await soon(client.reader.readuntil(b"\r\n\r\n"))
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        got += await soon(client.reader.readuntil(b"data: at last\n\n"))
    assert got.startswith(b"HTTP/1.1 200 ")
    assert (b"data: at last\n\n" in got) is heartbeats
    client.close()
    await until(lambda: front.cloud.metrics.in_flight == 0)  # nor does a stream stay here that the platform gave up


async def test_an_answer_that_the_platform_gave_up_ends_at_the_agent(front: Front) -> None:
    silent = RawAgent(b"")
    front.cloud.agent(silent)
    assert (await front.ask(request())).status == 504
    await soon(silent.gone.wait())
    assert front.cloud.metrics.requests["agent", "aborted"] == 1


async def test_bodies_stream_up_and_down(front: Front) -> None:
    body = bytes(range(256)) * 8000

    async def agent(reader: Reader, writer: Writer) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"Content-Length: %d\r\n" % len(body) in head
        got = await reader.readexactly(len(body))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(got) + got)

    front.cloud.agent(agent)
    answer = await front.ask(request(method="POST", headers=f"Content-Length: {len(body)}\r\n", body=body))
    assert (answer.header("Content-Encoding"), answer.body) == ("gzip", body)


async def test_a_websocket_passes(front: Front) -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)
            if message == "close":
                await connection.close(4001)

    path = front.cloud.run_dir / "agent"
    async with unix_serve(echo, str(path), max_size=None), aiohttp.ClientSession() as session:
        front.cloud.agent(to_unix(path))
        url = f"ws://127.0.0.1:{front.proxy.port}/api/relay/{AGENT}/ws"
        async with session.ws_connect(url, headers={"Authorization": f"Bearer {TOKEN}"}, max_msg_size=0) as client:
            for message in (b"", b"x" * 70_000, bytes(range(256))):
                await client.send_bytes(message)
                assert (await soon(client.receive())).data == message
            await client.send_str("close")
            assert (await soon(client.receive())).data == "close"
            assert (await soon(client.receive())).data == 4001


FORGED = (
    "X-Forwarded-For: 6.6.6.6, 127.0.0.1\r\nX-Forwarded-Host: evil.test\r\n"
    "X-Forwarded-Proto: gopher\r\nX-Real-IP: 6.6.6.6\r\n"
)


@pytest.mark.parametrize("headers", ["", FORGED, "Forwarded: for=6.6.6.6\r\n", "X-Forwarded-For: 6.6.6.6\r\n" * 3])
async def test_the_client_is_whom_the_trusted_proxy_saw(front: Front, headers: str) -> None:
    """The rightmost address that is no proxy of ours: what a client wrote stands left of it."""
    agent = RawAgent()
    front.cloud.agent(agent)
    assert (await front.ask(request(headers=headers))).status == 200
    assert f"X-Forwarded-For: {CLIENT}, 127.0.0.1".encode() in agent.lines
    assert b"X-Forwarded-Proto: https" in agent.lines
    assert f"X-Forwarded-Host: {HOST}".encode() in agent.lines
    assert not any(word in agent.heads[0] for word in (b"6.6.6.6", b"evil", b"gopher"))
    assert (await front.cloud.log_lines(1))[0]["client"] == CLIENT


async def test_the_word_of_a_proxy_that_is_not_trusted_is_a_claim(run_dir: Path) -> None:
    async with fronted(run_dir, trusted=False) as front:
        agent = RawAgent()
        front.cloud.agent(agent)
        answer = await front.ask(request(headers=FORGED + "X-Request-Id: mine\r\n"))
        assert answer.header("X-Request-Id") != "mine"
        assert b"X-Forwarded-For: 127.0.0.1" in agent.lines
        assert b"X-Forwarded-Proto: http" in agent.lines
        assert not any(word in agent.heads[0] for word in (CLIENT.encode(), HOST.encode(), b"evil", b"mine"))
        assert (await front.cloud.log_lines(1))[0]["client"] == "127.0.0.1"


async def test_the_trusted_proxy_names_requests_and_traces_pass(front: Front) -> None:
    agent = RawAgent()
    front.cloud.agent(agent)
    trace = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    answer = await front.ask(request(headers=f"X-Request-Id: edge::1\r\n{trace}\r\n"))
    assert answer.header("X-Request-Id") == "edge::1"
    assert b"X-Request-Id: edge::1" in agent.lines
    assert trace.encode() in agent.lines


async def test_a_preflight_and_its_request_pass(front: Front) -> None:
    front.cloud.agent(RawAgent())
    asked = (
        f"Origin: {ORIGIN}\r\nAccess-Control-Request-Method: PUT\r\nAccess-Control-Request-Headers: authorization\r\n"
    )
    preflight = await front.ask(request(method="OPTIONS", headers=asked, token=""))
    assert (preflight.status, preflight.header("Access-Control-Allow-Origin")) == (204, ORIGIN)
    assert preflight.header("Access-Control-Allow-Headers") == "authorization"
    assert front.cloud.tailscaled.dials == []
    answer = await front.ask(request(method="PUT", headers=f"Origin: {ORIGIN}\r\nContent-Length: 0\r\n"))
    assert (answer.status, answer.header("Access-Control-Allow-Origin")) == (200, ORIGIN)


async def test_answers_of_our_own_pass_as_they_are(front: Front) -> None:
    answer = await front.ask(request(token="ec_no_no", headers=f"Origin: {ORIGIN}\r\n"))
    assert (answer.status, answer.header("Elizacloud-Error")) == (401, "invalid_token")
    assert answer.header("Access-Control-Allow-Origin") == ORIGIN


async def test_a_redirect_stays_below_the_agent_also_by_the_platforms_name(front: Front) -> None:
    agent = RawAgent(
        f"HTTP/1.1 308 Go\r\nLocation: https://{HOST}/api/v1/agents/other\r\nContent-Length: 0\r\n\r\n".encode()
    )
    front.cloud.agent(agent)
    answer = await front.ask(request(method="DELETE"))
    assert answer.header("Location") == f"/api/relay/{AGENT}/api/v1/agents/other"


@pytest.mark.parametrize(("trusted", "status"), [(True, 200), (False, 403)])
async def test_the_scheme_that_the_trusted_proxy_spoke_decides_whose_page_it_is(
    run_dir: Path, trusted: bool, status: int
) -> None:
    async with fronted(run_dir, trusted=trusted, keep_host=True) as front:
        await signed_in(front.cloud)
        front.cloud.agent(RawAgent())
        answer = await front.ask(by_host(cookie=COOKIE, headers=f"Origin: https://{AGENTS_HOST}\r\n"))
        assert answer.status == status


async def test_a_proxys_many_connections_are_not_one_clients(run_dir: Path) -> None:
    limits = LimitSettings(connections_per_address=1, headless_per_address=1)
    async with fronted(run_dir, limits=limits) as front:
        front.cloud.agent(RawAgent(b""))
        clients = [await front.client() for _ in range(3)]
        for client in clients:
            client.send(request())
        await until(lambda: front.cloud.metrics.in_flight == 3)
        assert front.cloud.metrics.clients == 3
