"""Events and logs: as JSON and text, followed, resumed, and ended."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from elizacloud.api.app import close_streams
from elizacloud.states import State
from tests.api.conftest import Served

AGENTS = "/api/v1/agents"
ALL_STEPS = ["requested", "keyed", "started", "joined", "ready"]


async def read_events(lines: Any, until: str) -> list[tuple[str, dict[str, Any]]]:
    """Events up to the one that leads to that state, each with its id."""
    found, id_ = [], ""
    async for raw in lines:
        line = raw.decode().rstrip("\n")
        if line.startswith("id: "):
            id_ = line[4:]
        if line.startswith("data: "):
            found.append((id_, json.loads(line[6:])))
            if found[-1][1]["stateTo"] == until:
                break
    return found


async def test_a_history_is_json_with_pages(served: Served) -> None:
    agent_id = (await served.create())["agentId"]
    await served.world.until(agent_id, State.READY)
    whole = await served.call("GET", f"{AGENTS}/{agent_id}/events", Accept="application/json")
    assert [event["stateTo"] for event in whole.body["items"]] == ALL_STEPS
    assert whole.body["next"] is None
    first = await served.call("GET", f"{AGENTS}/{agent_id}/events?limit=2")
    rest = await served.call("GET", f"{AGENTS}/{agent_id}/events?after={first.body['next']}")
    assert first.body["items"] + rest.body["items"] == whole.body["items"]


async def test_a_stream_tells_each_transition_and_can_be_resumed(served: Served) -> None:
    agent_id = (await served.call("POST", f"{AGENTS}?wait=0", json={"agentName": "ada"})).body["agentId"]
    async with served.stream(f"{AGENTS}/{agent_id}/events") as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        events = await read_events(answer.content, "ready")
    assert [event["stateTo"] for _, event in events] == ALL_STEPS
    assert all(id_ == str(event["sequence"]) for id_, event in events)
    async with served.stream(f"{AGENTS}/{agent_id}/events", Last_Event_ID=events[2][0]) as answer:
        assert await read_events(answer.content, "ready") == events[3:]
    async with served.stream(f"{AGENTS}/{agent_id}/events", Last_Event_ID="what?") as answer:
        assert await read_events(answer.content, "ready") == events
    async with served.stream(f"{AGENTS}/{agent_id}/events?follow=false") as answer:
        assert await read_events(answer.content, "never") == events


async def test_a_stream_ends_when_the_agent_is_gone(served: Served) -> None:
    agent_id = (await served.create())["agentId"]
    async with served.stream(f"{AGENTS}/{agent_id}/events") as answer:
        await served.call("DELETE", f"{AGENTS}/{agent_id}")
        text = await answer.text()
    assert text.rstrip().endswith("}")
    assert '"stateTo":"gone"' in text.rpartition("data: ")[2]


async def test_streams_end_when_the_server_stops(served: Served) -> None:
    agent_id = (await served.create())["agentId"]
    async with (
        served.stream(f"{AGENTS}/{agent_id}/events") as events,
        served.stream(f"{AGENTS}/{agent_id}/logs?follow=true") as logs,
    ):
        close_streams(served.app)
        assert "data: started" in await logs.text()
        await events.text()


async def test_a_client_that_leaves_lets_its_stream_go(served: Served) -> None:
    agent_id = (await served.create())["agentId"]
    async with served.stream(f"{AGENTS}/{agent_id}/events") as answer:
        await read_events(answer.content, "joined")
    async with served.stream(f"{AGENTS}/{agent_id}/logs?follow=true"):
        pass
    while any(task.get_name().startswith("stream:") for task in asyncio.all_tasks()):
        await asyncio.sleep(0)


async def test_logs_are_text_or_events(served: Served) -> None:
    agent_id = (await served.create())["agentId"]
    record = await served.world.until(agent_id, State.READY)
    assert record.run is not None
    assert record.run.runtime_ref is not None
    for line in ("one", "two\rthree"):
        await served.world.runtime.prints(record.run.runtime_ref, line)
    text = await served.call("GET", f"{AGENTS}/{agent_id}/logs?tail=2")
    assert (text.body, text.headers["Content-Type"]) == ("one\ntwo\rthree\n", "text/plain; charset=utf-8")
    async with served.stream(f"{AGENTS}/{agent_id}/logs?tail=2") as answer:
        assert (await answer.text()).partition("\n\n")[2] == "data: one\n\ndata: two\ndata: three\n\n"
    assert (await served.call("GET", f"{AGENTS}/{agent_id}/logs?tail=0")).body == ""


async def test_logs_of_a_runtime_that_is_down_are_503(served: Served) -> None:
    agent_id = (await served.create())["agentId"]
    served.world.runtime.answers = False
    answer = await served.call("GET", f"{AGENTS}/{agent_id}/logs")
    assert (answer.status, answer.body["code"]) == (503, "runtime_unavailable")
    served.world.runtime.answers = True


async def test_our_own_client_follows_an_agent_to_ready_and_away(served: Served) -> None:
    async with served.client() as client:
        agent = await client.create_agent("ada", wait_seconds=0)
        ready = await client.wait_until(agent.agent_id, {State.READY}, within_seconds=20)
        assert ready.agent_ready
        assert [event.state_to async for event in client.events(agent.agent_id, following=False)] == ALL_STEPS
        assert [line async for line in client.logs(agent.agent_id)] == ["started"]
        assert [listed.agent_id async for listed in client.agents()] == [agent.agent_id]
        await client.delete_agent(agent.agent_id)
