"""Streams and upgraded connections end with the credential that opened them, on every worker that holds them."""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from elizacloud.auth import jose
from elizacloud.errors import Error
from elizacloud.model import utc_now
from elizacloud.relay.access_log import AccessLog
from elizacloud.relay.callers.access import Access
from elizacloud.relay.callers.caller import Credential
from elizacloud.relay.dialling.dial import LocalApiDialer
from elizacloud.relay.limits import LimitSettings
from elizacloud.relay.link.client import LinkClient
from elizacloud.relay.metrics import Metrics
from elizacloud.relay.worker import Worker, WorkerSettings
from elizacloud.upstreams import KnownIssuer
from tests.relay.browsers import (
    COOKIE,
    EVENTS,
    ORIGIN,
    PARENT,
    SWITCHED,
    TICKET,
    UPGRADE,
    by_host,
    session,
    signed_in,
    ticket_for,
)
from tests.relay.conftest import (
    AGENT,
    OWNER,
    TOKEN,
    TOKENS,
    Cloud,
    RawAgent,
    RawClient,
    known_token,
    soon,
    until,
    upstream,
)
from tests.relay.link.conftest import CIPHER

SHORT = "ec_tokenid00009_shortsecret"
OTHER = "ec_tokenid00008_othersecret"
STRANGERS = TOKENS[1].token_id
STREAM = "Accept: text/event-stream\r\n"
KEY_ID, PRIVATE = jose.new_private_key()


@dataclass
class OneWorker:
    """A worker addressed by itself."""

    port: int
    link: LinkClient
    metrics: Metrics

    def knows(self, cloud: Cloud) -> bool:
        return self.link.linked and self.link.table.revision == cloud.hub.snapshot().revision


@asynccontextmanager
async def second_worker(cloud: Cloud) -> AsyncIterator[OneWorker]:
    link = LinkClient(cloud.run_dir / "link", cloud.run_dir / "table2", CIPHER, name="w1", offline_grace_seconds=60)
    metrics = Metrics()
    settings = WorkerSettings("agents.test", cloud.run_dir / "api", "cell")
    dialer = LocalApiDialer(cloud.run_dir / "tailscaled")
    worker = Worker(settings, link, cloud.netmap, dialer, metrics, access_log=AccessLog(0))
    listener = socket.create_server(("127.0.0.1", 0))
    second = OneWorker(listener.getsockname()[1], link, metrics)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(worker.run([listener]), name="second worker")
        try:
            await until(lambda: second.knows(cloud))
            yield second
        finally:
            running.cancel()


class Streams:
    """An agent that answers upgrades and event streams, and says something on each when asked."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            head = await reader.readuntil(b"\r\n\r\n")
            writer.write(SWITCHED if b"Upgrade: websocket" in head else EVENTS)
            await reader.read()
        writer.close()


@pytest.fixture
async def cloud(run_dir: Path) -> AsyncIterator[Cloud]:
    async with Cloud(run_dir).running() as running:
        running.agent(Streams())
        running.hub.add_token(known_token(OTHER, 8))
        await running.told()
        yield running


async def opened(cloud: Cloud, data: bytes, port: int | None = None) -> RawClient:
    """A client whose stream has begun."""
    client = await cloud.client(port)
    client.send(data)
    head = await soon(client.reader.readuntil(b"\r\n\r\n"))
    if head.startswith(b"HTTP/1.1 200"):
        await soon(client.reader.readuntil(b"data: 1\n\n\r\n"))
    else:
        assert head.startswith(b"HTTP/1.1 101"), head
    return client


def websocket(token: str) -> bytes:
    return by_host("/ws", headers=f"{UPGRADE}Sec-WebSocket-Protocol: elizacloud, elizacloud.bearer.{token}\r\n")


def events(token: str) -> bytes:
    return by_host("/events", headers=f"{STREAM}Authorization: Bearer {token}\r\n")


async def test_a_revocation_ends_the_streams_of_every_worker_in_the_step_that_brings_it(cloud: Cloud) -> None:
    first = OneWorker(cloud.port, cloud.link, cloud.metrics)
    async with second_worker(cloud) as second:
        ended = []
        for worker in (first, second):
            ended += [
                await opened(cloud, websocket(TOKEN), worker.port),
                await opened(cloud, events(TOKEN), worker.port),
            ]
            await opened(cloud, websocket(OTHER), worker.port)
            await opened(cloud, events(OTHER), worker.port)
            assert worker.metrics.in_flight == 4
        cloud.hub.revoke_token(PARENT)
        for worker in (first, second):
            while not worker.knows(cloud):
                await asyncio.sleep(0)
            assert worker.metrics.in_flight == 2  # seen in the same step as the table
        for client in ended:
            assert await soon(client.at_end())
        cloud.hub.add_token(known_token("ec_another_token", 7))
        await until(lambda: first.knows(cloud) and second.knows(cloud))
        for worker in (first, second):
            assert worker.metrics.in_flight == 2


async def test_a_revocation_ends_what_was_made_with_the_token(cloud: Cloud) -> None:
    await signed_in(cloud)
    cloud.hub.trust([KnownIssuer("https://cloud.test", (jose.public_part(PRIVATE),))], None)
    ticket_for(cloud)
    await cloud.told()
    now = int(time.time())
    claims = {"iss": "https://cloud.test", "sub": OWNER, "aud": f"agent:{AGENT}", "jti": "j", "tid": PARENT}
    token = jose.Signer(KEY_ID, PRIVATE).sign(claims | {"iat": now, "exp": now + 60}, typ="at+jwt")
    clients = [
        await opened(cloud, by_host("/ws", cookie=COOKIE, headers=f"{UPGRADE}Origin: {ORIGIN}\r\n")),
        await opened(cloud, by_host("/events", cookie=COOKIE, headers=STREAM)),
        await opened(cloud, by_host(f"/ws?elizacloud_ticket={TICKET}", headers=UPGRADE)),
        await opened(cloud, websocket(token)),
    ]
    cloud.hub.revoke_token(PARENT)
    for client in clients:
        assert await soon(client.at_end())
    assert cloud.metrics.in_flight == 0


async def test_what_ends_a_stream_by_ticket_makes_room_for_the_next(run_dir: Path) -> None:
    async with Cloud(run_dir).running(limits=LimitSettings(agent_streams=1)) as cloud:
        cloud.agent(Streams())
        cloud.hub.add_token(known_token(OTHER, 8))
        ticket_for(cloud)
        await cloud.told()
        by_ticket = by_host(f"/ws?elizacloud_ticket={TICKET}", headers=UPGRADE)
        client = await opened(cloud, by_ticket)
        assert not cloud.worker._reach.uses.idle(AGENT)
        cloud.hub.revoke_token(PARENT)
        assert await soon(client.at_end())
        assert cloud.worker._reach.uses.idle(AGENT)
        await opened(cloud, websocket(OTHER))


async def test_a_key_that_is_withdrawn_ends_the_streams_of_its_tokens(cloud: Cloud) -> None:
    issuer = KnownIssuer("https://cloud.test", (jose.public_part(PRIVATE),))
    cloud.hub.trust([issuer], None)
    await cloud.told()
    now = int(time.time())
    claims = {"iss": issuer.issuer, "sub": OWNER, "aud": "agents", "iat": now, "exp": now + 60, "jti": "j"}
    client = await opened(cloud, websocket(jose.Signer(KEY_ID, PRIVATE).sign(claims, typ="at+jwt")))
    cloud.hub.trust([KnownIssuer(issuer.issuer, (jose.public_part(jose.new_private_key()[1]),))], None)
    await cloud.told()
    assert cloud.metrics.in_flight == 0
    assert await soon(client.at_end())


@pytest.mark.parametrize("stream", [websocket(SHORT), events(SHORT)])
async def test_an_expired_token_ends_its_streams(cloud: Cloud, stream: bytes) -> None:
    cloud.hub.add_token(known_token(SHORT, 9, expires_at=utc_now() + timedelta(seconds=0.5)))
    await cloud.told()
    client, _ = await opened(cloud, stream), await opened(cloud, websocket(OTHER))
    assert await soon(client.at_end())
    assert cloud.metrics.in_flight == 1


async def test_an_expired_session_ends_its_streams(cloud: Cloud) -> None:
    cloud.hub.add_token(session(expires_at=utc_now() + timedelta(seconds=0.5)))
    await cloud.told()
    client = await opened(cloud, by_host("/ws", cookie=COOKIE, headers=f"{UPGRADE}Origin: {ORIGIN}\r\n"))
    assert await soon(client.at_end())


async def test_a_request_without_an_answer_yet_is_told_why_it_ends(cloud: Cloud) -> None:
    silent = asyncio.Event()

    async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        silent.set()
        await reader.read()
        writer.close()

    cloud.agent(hold)
    client = await cloud.client()
    client.send(events(TOKEN))
    await soon(silent.wait())
    cloud.hub.revoke_token(PARENT)
    answer = await soon(client.answer())
    assert (answer.status, answer.header("Elizacloud-Error")) == (401, "invalid_token")
    assert await soon(client.at_end())


async def test_a_new_table_with_the_same_tokens_ends_nothing(cloud: Cloud) -> None:
    cloud.agent(Streams())
    await opened(cloud, events(TOKEN))
    snapshot = cloud.hub.snapshot()
    cloud.hub.load(snapshot.upstreams, snapshot.agents, snapshot.tokens)
    await cloud.told()
    assert cloud.metrics.in_flight == 1


class Floods:
    """An agent that sends on an upgraded connection for as long as somebody takes it."""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(SWITCHED)
            while True:
                writer.write(b"x" * 100_000)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def stalled(cloud: Cloud) -> AsyncIterator[None]:
    """A client that reads nothing has an upgraded connection, and all the way to it is full."""
    cloud.agent(Floods())
    with socket.create_connection(("127.0.0.1", cloud.port)) as client:
        client.sendall(websocket(TOKEN))
        await until(lambda: any(connection._write_paused for connection in cloud.worker._clients))
        yield


async def nothing_counted(cloud: Cloud) -> None:
    """The worker goes on, and counts each request that was in flight as ended, once."""
    await until(lambda: cloud.metrics.clients == 0)
    assert (cloud.metrics.in_flight, cloud.metrics.upgraded) == (0, 0)
    assert cloud.worker._reach.uses.idle(AGENT)
    cloud.agent(RawAgent())
    assert (await cloud.ask(events(OTHER))).status == 200


async def test_a_revocation_cuts_what_ended_and_cannot_leave(cloud: Cloud) -> None:
    async with stalled(cloud):
        cloud.hub.publish(upstream(run=2))
        await cloud.told()
        assert (cloud.metrics.in_flight, cloud.metrics.clients) == (0, 1)
        cloud.hub.revoke_token(PARENT)
        await cloud.told()
        await nothing_counted(cloud)


async def test_an_agent_may_be_started_anew_in_the_step_that_revokes(cloud: Cloud) -> None:
    await opened(cloud, events(TOKEN))
    await opened(cloud, websocket(TOKEN))
    tokens = [token for token in cloud.hub.snapshot().tokens if token.token_id != PARENT]
    cloud.hub.load([upstream(run=2)], [], tokens)
    await cloud.told()
    await nothing_counted(cloud)


class Doubts:
    """Cannot look at the credential of one token."""

    def __init__(self, access: Access, token_id: str) -> None:
        self._access = access
        self._token_id = token_id

    def ended(self, credential: Credential) -> Error | None:
        if credential.token_id == self._token_id:
            raise KeyError(self._token_id)
        return self._access.ended(credential)


async def test_a_look_that_fails_cuts_its_client_and_nobody_else(cloud: Cloud) -> None:
    cloud.worker._access = Doubts(cloud.worker._access, PARENT)  # type: ignore[assignment]
    cut, goes_on = await opened(cloud, events(TOKEN)), await opened(cloud, events(OTHER))
    cloud.hub.revoke_token(STRANGERS)
    assert await soon(cut.at_end())
    await until(lambda: cloud.metrics.in_flight == 1)
    goes_on.close()
    await nothing_counted(cloud)


async def test_the_agent_is_let_go_of(cloud: Cloud) -> None:
    agent = RawAgent(SWITCHED)
    cloud.agent(agent)
    client = await opened(cloud, websocket(TOKEN))
    cloud.hub.revoke_token(PARENT)
    assert await soon(client.at_end())
    await soon(agent.gone.wait())
