"""Agents that nobody uses, on real processes: they rest, and the next request wakes them, whatever it is and whatever breaks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from elizacloud.client import Client
from elizacloud.errors import Conflict
from elizacloud.states import State
from tests.conftest import CONTROL_SERVER
from tests.e2e.conftest import SERVERS, server_name
from tests.e2e.looking import WITHIN_SECONDS, a_moment
from tests.e2e.parts import Parts
from tests.e2e.test_static_stability import agent_of, client_of, owner_token

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOLD_SECONDS = 8
NEVER = {"idleAfterSeconds": "never"}
SOON = {"idleAfterSeconds": 1, "stopAfterSeconds": "never"}
Session = aiohttp.ClientSession


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=SERVERS, ids=server_name)
async def parts(request: pytest.FixtureRequest) -> AsyncIterator[Parts]:
    async with Parts(request.param, {"wake_hold_seconds": str(HOLD_SECONDS), "relay_domain": "agents.test"}) as parts:
        yield parts


@pytest.fixture(autouse=True)
def said(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    record_property(CONTROL_SERVER, server_name(request.node.callspec.params["parts"]))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def agent(parts: Parts) -> str:
    return await agent_of(parts, "sleeper")


@pytest_asyncio.fixture(loop_scope="module")
async def client(parts: Parts) -> AsyncIterator[Client]:
    async with client_of(parts) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def token(parts: Parts) -> str:
    """Made once: a worker hears of a new one a moment after it has linked again."""
    return await owner_token(parts)


@pytest_asyncio.fixture(loop_scope="module")
async def session(parts: Parts, token: str) -> AsyncIterator[Session]:
    """A browser's worth of connections, none of them used twice: so all workers get some."""
    headers = {"Authorization": f"Bearer {token}"}
    connector = aiohttp.TCPConnector(force_close=True, limit=0)
    async with Session(parts.url, headers=headers, connector=connector) as session:
        yield session


async def rests(client: Client, agent_id: str, state: State) -> None:
    """Bring it there, by its owner's word."""
    await client.start_agent(agent_id)
    await client.wait_until(agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
    await (client.sleep_agent if state is State.STOPPED else client.pause_agent)(agent_id)
    await client.wait_until(agent_id, {state}, within_seconds=WITHIN_SECONDS)


async def wakes(client: Client, agent_id: str) -> int:
    return sum([event.step == "wake" async for event in client.events(agent_id, following=False)])


async def get(session: Session, agent_id: str, path: str = "/api/status") -> int:
    async with session.get(f"/api/relay/{agent_id}{path}") as answer:
        return answer.status


async def chat(session: Session, agent_id: str) -> bytes:
    async with session.post(f"/api/relay/{agent_id}/api/chat/stream", json={"text": "hi"}) as answer:
        assert answer.content_type == "text/event-stream"
        return await answer.read()


async def talk(session: Session, agent_id: str) -> dict[str, Any]:
    async with session.ws_connect(f"/api/relay/{agent_id}/ws") as socket:
        return await echo(socket)


async def echo(socket: aiohttp.ClientWebSocketResponse) -> dict[str, Any]:
    await socket.send_json({"type": "echo", "text": "good morning"})
    async with asyncio.timeout(WITHIN_SECONDS):
        while (message := await socket.receive_json())["type"] != "echo":
            pass
    return dict(message)


@contextmanager
def frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_polls_and_pings_go_on_and_it_rests_and_a_message_wakes_it(
    client: Client, session: Session, agent: str
) -> None:
    await client.update_agent(agent, {"idlePolicy": SOON})
    async with session.ws_connect(f"/api/relay/{agent}/ws") as socket:

        async def keep_open() -> None:
            while True:
                await socket.ping()
                await socket.send_json({"type": "ping"})
                await get(session, agent, "/api/health")
                await a_moment(0.2)

        keeping = asyncio.create_task(keep_open(), name="keep it open")
        await client.wait_until(agent, {State.PAUSED}, within_seconds=WITHIN_SECONDS)
        before = await wakes(client, agent)
        await a_moment(0.5)
        assert (await client.get_agent(agent)).status == State.PAUSED, "what keeps it open does not wake it"
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        assert (await echo(socket))["text"] == "good morning"
        assert await wakes(client, agent) == before + 1
    await client.update_agent(agent, {"idlePolicy": NEVER})


async def test_work_is_not_cut_nor_put_to_rest(parts: Parts, client: Client, session: Session, agent: str) -> None:
    """Twice as long as it may be unused: an answer that takes its time, then work of which no request tells."""
    # Relays tell every second what is used, and on a busy machine later.
    await client.update_agent(agent, {"idlePolicy": {**SOON, "idleAfterSeconds": 3}})
    (token,) = [path.read_text().strip() for path in parts.data.path.rglob("*busy*") if agent in str(path)]
    slow = f"/api/relay/{agent}/api/chat/stream?tokens=7&intervalMs=1000"
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as container:
        async with session.post(slow, json={"text": "take your time"}) as answer:
            assert b'"done"' in await answer.read()
        async with container.post(f"{parts.url}/containers/{agent}/busy", json={"seconds": 6}) as answer:
            assert answer.status == 200
    began = time.monotonic()
    await client.wait_until(agent, {State.PAUSED}, within_seconds=WITHIN_SECONDS)
    assert time.monotonic() - began >= 5
    await client.update_agent(agent, {"idlePolicy": NEVER})


@pytest.mark.parametrize("state", [State.PAUSED, State.STOPPED])
async def test_requests_of_all_kinds_wake_it_once_over_all_workers(
    client: Client, session: Session, agent: str, state: State
) -> None:
    await rests(client, agent, state)
    before, address = await wakes(client, agent), (await client.get_agent(agent)).ip
    async with asyncio.timeout(WITHIN_SECONDS), asyncio.TaskGroup() as tasks:
        plain = [tasks.create_task(get(session, agent), name="plain") for _ in range(8)]
        events = [tasks.create_task(chat(session, agent), name="events") for _ in range(4)]
        sockets = [tasks.create_task(talk(session, agent), name="socket") for _ in range(4)]
    assert {task.result() for task in plain} == {200}
    assert all(b'"done"' in task.result() for task in events)
    assert all(task.result()["text"] == "good morning" for task in sockets)
    assert await wakes(client, agent) == before + 1
    assert (await client.get_agent(agent)).ip == address


async def test_scanners_wake_nobody(parts: Parts, client: Client, agent: str) -> None:
    await rests(client, agent, State.PAUSED)
    before = await wakes(client, agent)
    async with aiohttp.ClientSession() as stranger:
        for headers in ({}, {"Authorization": "Bearer ec_guess_guess"}, {"Cookie": "__Host-elizacloud=ecs_guess"}):
            for path in ("/", "/.env", "/api/status", "/ws?token=guess"):
                for host in ({}, {"Host": f"{agent}.agents.test", "Accept": "text/html"}):
                    base = parts.url if host else f"{parts.url}/api/relay/{agent}"
                    async with stranger.get(base + path, headers={**headers, **host}) as answer:
                        assert answer.status == 401
    assert (await wakes(client, agent), (await client.get_agent(agent)).status) == (before, State.PAUSED)


async def test_over_the_deadline_a_program_is_told_and_a_person_sees_a_page(
    parts: Parts, client: Client, session: Session, agent: str
) -> None:
    await rests(client, agent, State.PAUSED)
    page_asked = {"Host": f"{agent}.agents.test", "Accept": "text/html", "Sec-Fetch-Mode": "navigate"}
    with frozen(parts.child("process host").pid):
        began = time.monotonic()
        async with session.get(f"/api/relay/{agent}/api/status") as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
            assert (await answer.json())["code"] == "agent_starting"
        assert time.monotonic() - began >= HOLD_SECONDS * 0.9
        async with session.get("/", headers=page_asked) as page:
            assert (page.status, page.content_type) == (503, "text/html")
            assert "Waking up" in await page.text()
    async with asyncio.timeout(WITHIN_SECONDS):
        while True:
            async with session.get("/", headers=page_asked) as page:
                if page.status == 200:
                    assert "Milady" in await page.text()
                    return


async def test_the_control_plane_is_killed_in_the_middle_of_a_wake(
    parts: Parts, client: Client, session: Session, agent: str
) -> None:
    await rests(client, agent, State.PAUSED)
    before = await wakes(client, agent)
    with frozen(parts.child("process host").pid):
        asked = asyncio.create_task(get(session, agent), name="asked")
        async with asyncio.timeout(WITHIN_SECONDS):
            while await wakes(client, agent) == before:
                await a_moment()
        await parts.kill("control plane")
    assert await asked == 503
    await parts.start("control plane")
    await parts.until_ready()
    await client.wait_until(agent, {State.READY}, within_seconds=WITHIN_SECONDS)
    assert await get(session, agent) == 200
    assert await wakes(client, agent) == before + 1, "what was begun is finished, and nobody had to ask again"


async def test_a_request_that_comes_without_a_control_plane_wakes_it_when_that_is_back(
    parts: Parts, client: Client, session: Session, agent: str
) -> None:
    await rests(client, agent, State.PAUSED)
    await parts.kill("control plane")
    asked = asyncio.create_task(get(session, agent), name="asked")
    await parts.start("control plane")
    assert await asked in (200, 503), "it was back within the time, or not"
    async with asyncio.timeout(WITHIN_SECONDS):
        while await get(session, agent) != 200:
            pass


async def test_an_archived_agent_comes_back_as_another_node_with_its_state(
    parts: Parts, client: Client, session: Session, agent: str
) -> None:
    saved = {"name": "discord", "config": {"enabled": True}}
    async with session.post(f"/api/relay/{agent}/api/connectors", json=saved) as answer:
        assert answer.status in (200, 201)
    await rests(client, agent, State.STOPPED)
    with pytest.raises(Conflict):
        await client.pause_agent(agent)
    node = (await client.explain(agent)).headscale.nodes[0].node_id
    await parts.kill("control plane")
    parts.more_settings["archive_after_seconds"] = "1"
    await parts.start("control plane")
    await parts.until_ready()
    async with asyncio.timeout(WITHIN_SECONDS):
        while "comes back with a new one" not in (explained := await client.explain(agent)).why:
            await a_moment(0.1)
    assert not explained.headscale.nodes
    async with asyncio.timeout(WITHIN_SECONDS):
        while await get(session, agent) != 200:
            pass
    assert (await client.explain(agent)).headscale.nodes[0].node_id != node
    async with session.get(f"/api/relay/{agent}/api/connectors") as answer:
        assert "discord" in (await answer.json())["connectors"]
