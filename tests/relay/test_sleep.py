"""Agents that sleep, seen from a worker: who may wake them, what a client sees meanwhile, what counts as a use."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from websockets.frames import Frame, Opcode

from elizacloud.relay import worker as relay_worker
from elizacloud.relay.callers import waiting
from elizacloud.upstreams import WakeRefusal
from tests.relay.conftest import (
    AGENT,
    BOUND_TOKEN,
    EXPIRED_TOKEN,
    STRANGERS_TOKEN,
    TOKEN,
    Answer,
    Cloud,
    RawAgent,
    RawClient,
    asleep,
    request,
    soon,
    until,
    upstream,
)

UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZQ==\r\n"
)
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
NAVIGATION = "Accept: text/html,*/*\r\nSec-Fetch-Mode: navigate\r\n"


@pytest.fixture(autouse=True)
def no_tick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests say when the worker tells what was used; nobody asks again because the machine was slow."""
    monkeypatch.setattr(relay_worker, "_TICK_SECONDS", 3600.0)
    monkeypatch.setattr("elizacloud.relay.wakes._AGAIN_SECONDS", 3600.0)


def by_host(headers: str = "", path: str = "/", token: str = TOKEN) -> bytes:
    return (
        f"GET {path} HTTP/1.1\r\nHost: {AGENT}.agents.test\r\nAuthorization: Bearer {token}\r\n{headers}\r\n".encode()
    )


def code(answer: Answer) -> tuple[int, str]:
    return answer.status, json.loads(answer.body)["code"]


async def sleep(cloud: Cloud) -> None:
    """Tell the worker that the agent sleeps."""
    cloud.hub.describe([asleep(wakeable=True)])
    await cloud.told()


async def asked_to_wake(cloud: Cloud, times: int = 1) -> None:
    await until(lambda: len(cloud.heard.wakes) >= times)


class Socket:
    """An agent with one open stream; what comes from the client is in `heard`."""

    def __init__(self, answer: bytes = SWITCHED) -> None:
        self.answer = answer
        self.heard = b""
        self.writer: asyncio.StreamWriter

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.writer = writer
        writer.write(self.answer)
        while data := await reader.read(65536):
            self.heard += data


async def opened(cloud: Cloud, agent: Socket, data: bytes | None = None) -> RawClient:
    cloud.agent(agent)
    client = await cloud.client()
    client.send(data or request("/ws", headers=UPGRADE))
    await soon(client.answer(head_only=True))
    return client


async def used(cloud: Cloud) -> list[str]:
    """What was told of uses, after the worker has told what there was."""
    cloud.link.tell_uses(cloud.worker._reach.uses.take())
    cloud.link.tell_wake("end")
    await until(lambda: "end" in cloud.heard.wakes)
    told, cloud.heard.uses = sorted(set(cloud.heard.uses)), []
    cloud.heard.wakes = [agent_id for agent_id in cloud.heard.wakes if agent_id != "end"]
    return told


# Who may wake it.


@pytest.mark.parametrize("token", ["", "ec_wrong_token", STRANGERS_TOKEN, BOUND_TOKEN, EXPIRED_TOKEN])
@pytest.mark.parametrize("headers", ["", UPGRADE, "Accept: text/event-stream\r\n", NAVIGATION])
async def test_who_may_not_reach_it_cannot_wake_it(cloud: Cloud, token: str, headers: str) -> None:
    await sleep(cloud)
    for data in (request("/", token=token, headers=headers), by_host(headers, token=token)):
        assert (await cloud.ask(data)).status in (401, 404)
    assert cloud.heard.wakes == []


async def test_a_preflight_wakes_nobody(run_dir: Path) -> None:
    async with Cloud(run_dir).running(cors_origins=("https://app.test",)) as cloud:
        await sleep(cloud)
        asked = "Origin: https://app.test\r\nAccess-Control-Request-Method: POST\r\n"
        assert (await cloud.ask(request("/x", method="OPTIONS", headers=asked))).status == 204
        assert cloud.heard.wakes == []


# What its caller sees.


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (
            request("/chat", method="POST", headers="Content-Length: 2\r\n", body=b"hi"),
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        (request("/events", headers="Accept: text/event-stream\r\n"), EVENTS),
        (request("/ws", headers=UPGRADE), SWITCHED),
    ],
    ids=["http", "events", "websocket"],
)
async def test_a_request_that_wakes_it_gets_one_normal_answer(cloud: Cloud, data: bytes, answer: bytes) -> None:
    cloud.agent(RawAgent(answer))
    await sleep(cloud)
    client = await cloud.client()
    client.send(data)
    await asked_to_wake(cloud)
    cloud.hub.describe([asleep(state="joined")])
    await cloud.told()
    cloud.hub.publish(upstream())
    assert (await soon(client.answer(head_only=True))).status == int(answer.split()[1])
    assert cloud.heard.wakes == [AGENT]


async def test_a_woken_agent_may_still_be_said_to_be_paused(cloud: Cloud) -> None:
    """It is told to run; that it is frozen still is no reason to refuse who waits."""
    cloud.agent(RawAgent())
    await sleep(cloud)
    client = await cloud.client()
    client.send(request())
    await asked_to_wake(cloud)
    cloud.hub.describe([replace(asleep(), coming=True)])
    await cloud.told()
    cloud.hub.publish(upstream())
    assert (await soon(client.answer())).status == 200


async def test_over_the_deadline_it_is_starting(run_dir: Path) -> None:
    async with Cloud(run_dir).running(wake_hold_seconds=0.05) as cloud:
        await sleep(cloud)
        answer = await cloud.ask(request())
        assert code(answer) == (503, "agent_starting")
        assert answer.header("Retry-After") == "2"
        assert (await cloud.ask(request("/ws", headers=UPGRADE))).status == 503
        await asked_to_wake(cloud, 2)


async def test_a_wake_that_was_refused_is_said_to_all_who_wait(cloud: Cloud) -> None:
    await sleep(cloud)
    clients = [await cloud.client() for _ in range(3)]
    for client in clients:
        client.send(request())
    await until(lambda: cloud.metrics.in_flight == 3)
    await asked_to_wake(cloud)
    cloud.hub.refuse_wake(WakeRefusal(AGENT, "cannot wake the agent: too often", "too_many_wakes", 40.0))
    for client in clients:
        answer = await soon(client.answer())
        assert code(answer) == (429, "too_many_wakes")
        assert answer.header("Retry-After") == "40"
    assert code(await cloud.ask(request())) == (429, "too_many_wakes")
    assert cloud.heard.wakes == [AGENT], "the refusal counts for a while"


async def test_a_wake_that_got_lost_with_the_link_is_asked_for_again(cloud: Cloud) -> None:
    cloud.agent(RawAgent())
    await sleep(cloud)
    client = await cloud.client()
    client.send(request())
    await asked_to_wake(cloud)
    for worker in tuple(cloud.hub._workers.values()):
        worker.cut("the control plane was killed")
    await asked_to_wake(cloud, 2)
    cloud.hub.publish(upstream())
    assert (await soon(client.answer())).status == 200


async def test_somebody_who_opens_its_page_sees_that_it_wakes_up(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "PAGE_AFTER_SECONDS", 0.05)
    cloud.agent(RawAgent(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nthe app"))
    await sleep(cloud)
    page = await cloud.ask(by_host(NAVIGATION, "/chat?x=1#there"))
    assert (page.status, page.header("Content-Type"), page.header("Retry-After")) == (
        503,
        "text/html; charset=utf-8",
        "1",
    )
    assert page.header("Cache-Control") == "no-store"
    assert b'<noscript><meta http-equiv="refresh" content="1"></noscript>' in page.body
    script = page.body.partition(b"<script>")[2].partition(b"</script>")[0]
    hashed = base64.b64encode(hashlib.sha256(script).digest()).decode()
    assert f"script-src 'sha256-{hashed}'" in (page.header("Content-Security-Policy") or "")
    assert cloud.heard.wakes == [AGENT]
    cloud.hub.publish(upstream())
    await cloud.told()
    assert (await cloud.ask(by_host(NAVIGATION))).body == b"the app"


@pytest.mark.parametrize(
    "data",
    [
        by_host("Accept: text/html\r\nSec-Fetch-Mode: cors\r\n"),
        by_host("Accept: */*\r\n"),
        request("/", headers=NAVIGATION),
        request("/", method="POST", headers=f"{NAVIGATION}Content-Length: 0\r\n"),
    ],
)
async def test_whoever_is_no_person_at_the_agents_page_waits(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(waiting, "PAGE_AFTER_SECONDS", 0.01)
    async with Cloud(run_dir).running(wake_hold_seconds=0.1) as cloud:
        await sleep(cloud)
        assert code(await cloud.ask(data)) == (503, "agent_starting")


# What is a use.


async def test_requests_are_told_and_polls_are_not(cloud: Cloud) -> None:
    cloud.agent(RawAgent())
    for _ in range(3):
        assert (await cloud.ask(request("/api/health"))).status == 200
        assert (await cloud.ask(request("/api/health?full=1", method="HEAD"))).status == 200
    assert await used(cloud) == []
    await cloud.ask(request("/api/healthy"))
    assert await used(cloud) == [AGENT]
    assert await used(cloud) == []


async def test_uses_are_told_by_themselves(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_worker, "_TICK_SECONDS", 0.02)
    async with Cloud(run_dir).running() as cloud:
        cloud.agent(RawAgent())
        await cloud.ask(request())
        await until(lambda: cloud.heard.uses == [AGENT])


async def test_work_in_flight_is_told_for_as_long_as_it_lasts(cloud: Cloud) -> None:
    agent = Socket(EVENTS)
    client = await opened(cloud, agent, request("/api/chat/stream", method="POST", headers="Content-Length: 0\r\n"))
    for _ in range(3):
        assert await used(cloud) == [AGENT], "an answer to a POST is work, silent or not"
    assert not await cloud.worker.drained(AGENT, within_seconds=0.05)
    client.close()
    await until(lambda: cloud.metrics.in_flight == 0)
    await used(cloud)
    assert await used(cloud) == []


async def test_pings_and_the_stock_agents_status_keep_nothing_awake(cloud: Cloud) -> None:
    agent = Socket()
    client = await opened(cloud, agent)
    assert await used(cloud) == [AGENT], "somebody opened it"
    status = Frame(Opcode.TEXT, b'{"type":"status","state":"running"}').serialize(mask=False)
    agent.writer.write(status)
    await soon(client.reader.readexactly(len(status)))
    ping = Frame(Opcode.PING, b"").serialize(mask=True)
    client.send(ping)
    await until(lambda: agent.heard == ping)
    assert await used(cloud) == []
    message = Frame(Opcode.TEXT, b"hello").serialize(mask=True)
    client.send(message)
    await until(lambda: agent.heard == ping + message)
    assert await used(cloud) == [AGENT]
    answer = Frame(Opcode.TEXT, b"hello yourself").serialize(mask=False)
    agent.writer.write(answer)
    await soon(client.reader.readexactly(len(answer)))
    assert await used(cloud) == [AGENT]


async def test_comments_keep_nothing_awake(cloud: Cloud) -> None:
    agent = Socket(EVENTS)
    client = await opened(cloud, agent, request("/events", headers="Accept: text/event-stream\r\n"))
    await used(cloud)
    agent.writer.write(b": heartbeat\n\n")
    await soon(client.reader.readuntil(b"heartbeat\n\n\r\n"))
    assert await used(cloud) == []
    agent.writer.write(b"data: 1\n\n")
    await soon(client.reader.readuntil(b"data: 1\n\n\r\n"))
    assert await used(cloud) == [AGENT]


async def test_polls_are_asked_for_as_such_and_a_lone_one_is_a_request(cloud: Cloud) -> None:
    await sleep(cloud)
    first, second = await cloud.client(), await cloud.client()
    first.send(request("/api/health"))
    await asked_to_wake(cloud)
    second.send(request("/api/health"))
    await until(lambda: cloud.metrics.in_flight == 2)
    assert cloud.heard.poll_gaps == [None]
    cloud.agent(RawAgent())
    cloud.hub.publish(upstream())
    assert [(await soon(client.answer())).status for client in (first, second)] == [200, 200]
    await sleep(cloud)
    first.send(request("/api/health"))
    await asked_to_wake(cloud, 2)
    gap = cloud.heard.poll_gaps[1]
    assert gap is not None
    assert 0 < gap < 5
    refusal = WakeRefusal(AGENT, "cannot reach the agent: it is asleep", "agent_asleep", 60.0)
    cloud.hub.refuse_wake(refusal)
    assert code(await soon(first.answer())) == (503, "agent_asleep")
    assert code(await cloud.ask(request("/api/health"))) == (503, "agent_asleep")
    assert len(cloud.heard.wakes) == 2, "the refusal counts for a while"
    first.send(request("/"))
    await asked_to_wake(cloud, 3)
    assert cloud.heard.poll_gaps[2] is None, "and not for a request"
    cloud.hub.refuse_wake(refusal)
    cloud.hub.publish(upstream())
    assert (await soon(first.answer())).status == 200


# Pausing it.


async def test_a_silent_stream_outlives_the_pause(cloud: Cloud) -> None:
    agent = Socket()
    client = await opened(cloud, agent)
    assert not await cloud.worker.drained(AGENT, within_seconds=0.05), "it was used just now"
    await used(cloud)
    assert await cloud.worker.drained(AGENT, within_seconds=20)
    await sleep(cloud)
    ping, pong = Frame(Opcode.PING, b"?").serialize(mask=True), Frame(Opcode.PONG, b"?").serialize(mask=False)
    client.send(ping)
    assert await soon(client.reader.readexactly(len(pong))) == pong
    assert (agent.heard, cloud.heard.wakes) == (b"", [])
    message = Frame(Opcode.TEXT, b"good morning").serialize(mask=True)
    client.send(message)
    await asked_to_wake(cloud)
    await until(lambda: agent.heard == message)
    cloud.hub.publish(upstream())
    await cloud.told()
    client.send(ping)
    await until(lambda: agent.heard == message + ping)


async def test_a_held_request_ends_the_drain(cloud: Cloud) -> None:
    agent = Socket(EVENTS)
    client = await opened(cloud, agent, request("/x", method="POST", headers="Content-Length: 0\r\n"))
    asked = asyncio.create_task(cloud.worker.drained(AGENT, within_seconds=60), name="drain")
    await sleep(cloud)
    held = await cloud.client()
    held.send(request())
    assert await soon(asked) is False
    client.close()
