"""The calls of the client: what it sends, and waiting for an agent."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import aiohttp
import pytest
from pydantic import SecretStr

from elizacloud.client import TIMED_OUT, AgentEvent, Client
from elizacloud.client import client as module
from elizacloud.errors import Conflict, NotFound, Unavailable
from elizacloud.states import State
from tests.fakes.api import TOKEN, FakeApi, problem


@asynccontextmanager
async def connected(api: FakeApi) -> AsyncIterator[Client]:
    async with api.running(), Client(api.url, SecretStr(TOKEN)) as client:
        yield client


async def test_create_sends_the_seeds_fields() -> None:
    api = FakeApi()
    async with connected(api) as client:
        agent = await client.create_agent(
            "ada", config={"theme": "x"}, options={"image": "i:1"}, wait_seconds=0, idempotency_key="k"
        )
    [sent] = api.sent
    assert sent.body == {"agentName": "ada", "agentConfig": {"theme": "x"}, "image": "i:1"}
    assert (sent.query, sent.headers["Idempotency-Key"]) == ({"wait": "0"}, "k")
    assert (agent.agent_name, agent.state) == ("ada", State.REQUESTED)


async def test_lists_go_through_all_pages() -> None:
    api = FakeApi()
    async with connected(api) as client:
        ids = [api.add() for _ in range(5)]
        assert [agent.agent_id async for agent in client.agents()] == ids
        for _ in range(3):
            await client.create_token("t")
        assert [token.token_id async for token in client.tokens()] == ["t0", "t1", "t2"]


async def test_the_other_calls_go_where_they_should() -> None:
    api = FakeApi()
    async with connected(api) as client:
        agent_id = api.add()
        await client.update_agent(agent_id, {"agentName": "eve"})
        await client.start_agent(agent_id)
        await client.stop_agent(agent_id)
        await client.restart_agent(agent_id)
        token = await client.create_token("t", agent_id=agent_id, expires_in_seconds=60)
        await client.create_jwt(agent_id=agent_id, expires_in_seconds=60)
        await client.create_jwt()
        ticket = await client.create_ticket(agent_id)
        assert "ect_secret" not in repr(ticket) + str(ticket.as_json())
        await client.revoke_token(token.token_id)
        await client.delete_agent(agent_id)
        async with client.relay("GET", agent_id, "/api/health?x=1") as answer:
            assert await answer.json() == {"ready": True}
    base = f"/api/v1/agents/{agent_id}"
    assert [(sent.method, sent.path) for sent in api.sent] == [
        ("PATCH", base),
        ("POST", f"{base}/start"),
        ("POST", f"{base}/stop"),
        ("POST", f"{base}/restart"),
        ("POST", f"{base}/tokens"),
        ("POST", f"{base}/tokens"),
        ("POST", "/api/v1/tokens"),
        ("POST", f"{base}/tickets"),
        ("DELETE", "/api/v1/tokens/t0"),
        ("DELETE", base),
        ("GET", f"/api/relay/{agent_id}/api/health"),
    ]
    assert api.sent[4].body == {"name": "t", "expiresInSeconds": 60}
    assert api.sent[-1].query == {"x": "1"}


async def test_an_id_cannot_lead_to_another_path() -> None:
    api = FakeApi()
    async with connected(api) as client:
        with pytest.raises(NotFound):
            await client.get_agent("../tokens?x=")
    assert api.sent[0].path == "/api/v1/agents/../tokens?x="  # one segment: aiohttp shows it decoded


async def test_problems_are_raised_as_errors() -> None:
    api = FakeApi()
    async with connected(api) as client:
        api.fail_next = [problem(409, "name_taken", "cannot use this name twice")]
        with pytest.raises(Conflict, match="cannot use this name twice"):
            await client.create_agent("ada")


async def test_an_answer_of_another_shape_is_a_sentence() -> None:
    api = FakeApi()
    async with connected(api) as client:
        agent_id = api.add()
        del api.agents[agent_id]["agentName"]
        with pytest.raises(Unavailable, match="cannot understand the server's answer"):
            await client.get_agent(agent_id)


async def test_waiting_hears_every_transition_once_also_across_a_broken_stream() -> None:
    api = FakeApi(cut_after_events=3)
    heard: list[AgentEvent] = []
    async with connected(api) as client:
        created = await client.create_agent("ada", wait_seconds=0)
        agent = await client.wait_until(created.agent_id, {State.READY}, within_seconds=20, on_event=heard.append)
    assert (agent.state, agent.ip) == (State.READY, "100.64.0.7")
    assert [event.state_to for event in heard] == ["requested", "keyed", "started", "joined", "ready"]
    looks = [sent for sent in api.sent if (sent.method, sent.path) == ("GET", f"/api/v1/agents/{created.agent_id}")]
    assert len(looks) == 2, "at the begin, and when it is there"


async def test_waiting_for_what_is_there_already_returns_at_once() -> None:
    api = FakeApi()
    async with connected(api) as client:
        agent = await client.wait_until(api.add("stopped"), {State.STOPPED}, within_seconds=20)
    assert agent.state is State.STOPPED


async def test_waiting_for_a_restart_wants_a_new_arrival() -> None:
    api = FakeApi(to_come=["stopped", "started", "joined", "ready"])
    async with connected(api) as client:
        agent_id = api.add("ready")
        before = len(api.events)
        heard: list[AgentEvent] = []
        await client.wait_until(
            agent_id, {State.READY}, within_seconds=20, on_event=heard.append, after=before, anew=True
        )
    assert [event.state_to for event in heard] == ["stopped", "started", "joined", "ready"]


async def test_the_last_transition_is_heard_also_when_a_look_is_ahead_of_it() -> None:
    api = FakeApi(to_come=["ready"])
    async with connected(api) as client:
        agent_id = api.add("joined")
        api.agents[agent_id]["status"] = "ready"  # the event is still to come
        heard: list[AgentEvent] = []
        await client.wait_until(agent_id, {State.READY}, within_seconds=20, on_event=heard.append)
    assert [event.state_to for event in heard] == ["joined", "ready"]


async def test_waiting_too_long_says_what_is_in_the_way() -> None:
    api = FakeApi(to_come=[])
    async with connected(api) as client:
        agent_id = api.add("started", message="Its instance runs and is joining the tailnet.")
        with pytest.raises(Unavailable, match=r"it is started after .* joining the tailnet") as failed:
            await client.wait_until(agent_id, {State.READY}, within_seconds=0.1)
    assert failed.value.reason == TIMED_OUT


async def test_waiting_works_without_events_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.01)
    api = FakeApi(to_come=[])
    async with connected(api) as client:
        agent_id = api.add("joined")
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(client.wait_until(agent_id, {State.READY}, within_seconds=20), name="wait")
            while len(api.sent) < 4:
                await asyncio.sleep(0)
            api.agents[agent_id]["status"] = "ready"
    assert waiting.result().state is State.READY


async def test_waiting_for_one_that_goes_away_is_not_found() -> None:
    api = FakeApi(to_come=["deleting"])
    async with connected(api) as client:
        agent_id = api.add("joined")
        with pytest.raises(NotFound):
            await client.wait_until(
                agent_id, {State.READY}, within_seconds=20, on_event=lambda event: void(api.agents.pop(agent_id, None))
            )


async def test_logs_come_as_text_or_followed() -> None:
    api = FakeApi()
    async with connected(api) as client:
        agent_id = api.add()
        assert [line async for line in client.logs(agent_id, tail=2)] == ["two", "three"]
        async with aclosing(client.logs(agent_id, tail=1, following=True)) as lines:
            assert await anext(lines) == "three"


async def test_logs_that_do_not_come_time_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOGS", aiohttp.ClientTimeout(total=0.05))
    api = FakeApi(logs_come=False)
    async with connected(api) as client, asyncio.timeout(20):
        with pytest.raises(Unavailable) as failed:
            [line async for line in client.logs(api.add())]
    assert failed.value.reason == TIMED_OUT


async def test_followed_logs_go_on_after_a_broken_connection_without_old_lines() -> None:
    api = FakeApi(cut_after_events=1, logs_go_on=False)
    async with connected(api) as client:
        agent_id = api.add()
        lines = [line async for line in client.logs(agent_id, tail=2, following=True)]
    assert lines == ["two", "three"]
    assert [sent.query["tail"] for sent in api.sent] == ["2", "0"]


async def test_known_events_come_page_by_page_and_end() -> None:
    api = FakeApi()
    async with connected(api) as client:
        agent_id = api.add("requested")
        for state in ("keyed", "started", "joined", "ready"):
            api.move(agent_id, state)
        events = [event.state_to async for event in client.events(agent_id, following=False)]
        later = [event.state_to async for event in client.events(agent_id, following=False, after=3)]
    assert events == ["requested", "keyed", "started", "joined", "ready"]
    assert later == ["joined", "ready"]


async def test_the_events_of_one_that_is_gone_end() -> None:
    api = FakeApi(to_come=["deleting", "tombstone", "gone"])
    async with connected(api) as client:
        events = [event.state_to async for event in client.events(api.add("ready"))]
    assert events == ["ready", "deleting", "tombstone", "gone"]


def void(_: object) -> None:
    return None
