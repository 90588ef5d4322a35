"""Requests that cannot be done and agents that never come up: each gets a clear sentence, and nothing is left of it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import pytest
from pydantic import SecretStr

from elizacloud.client import Agent, Client
from elizacloud.errors import NotFound, Unavailable
from elizacloud.states import State
from tests.e2e.cloud import Cloud
from tests.e2e.raw import is_027, is_alive, keys_left, keys_of, nodes, nodes_of, raw_headscale, user_id
from tests.e2e.test_by_hand import cli

WITHIN_SECONDS = 40
NOBODYS = "bcdfghjkmnpqrstv"
BODIES = {"tokens": {"name": "x"}, "networking": {"headscaleIp": "100.64.0.2"}, "busy": {"seconds": 1}}

T = TypeVar("T")


async def post(cloud: Cloud, body: Any, *, key: str | None = None) -> tuple[int, Mapping[str, Any], Mapping[str, str]]:
    """POST /api/v1/agents; status, answer and headers."""
    headers = {**cloud.headers, **({} if key is None else {"Idempotency-Key": key})}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(
            f"{cloud.url}/api/v1/agents",
            data=io.BytesIO(json.dumps(body).encode()),
            headers={"Content-Type": "application/json"},
        ) as answer,
    ):
        return answer.status, await answer.json(), answer.headers


async def at_once(*calls: Awaitable[T]) -> list[T]:
    async with asyncio.TaskGroup() as tasks:
        begun = [tasks.create_task(_awaited(call), name="one of many") for call in calls]
    return [task.result() for task in begun]


async def _awaited(call: Awaitable[T]) -> T:
    return await call


def told(agent: Agent, field: str) -> Any:
    """A field of the answer that the client's model does not name."""
    return (agent.model_extra or {})[field]


async def names(client: Client) -> list[str]:
    return [agent.agent_name async for agent in client.agents() if told(agent, "wanted") != "deleted"]


async def until(client: Client, agent_id: str, seen: Any) -> Agent:
    """The agent, once `seen(agent)` is true."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while not seen(agent := await client.get_agent(agent_id)):
            pass
    return agent


async def delete_for_good(cloud: Cloud, client: Client, agent_id: str) -> None:
    """Delete it and see that no process, node, key or file is left of it."""
    await client.delete_agent(agent_id)
    with pytest.raises(NotFound):
        await client.wait_until(agent_id, {State.GONE}, within_seconds=WITHIN_SECONDS)
        raise NotFound("it is gone")
    await nothing_is_left(cloud, agent_id)


async def nothing_is_left(cloud: Cloud, agent_id: str) -> None:
    assert not [line for line in cloud.processes().values() if agent_id in line]
    assert not await nodes_of(cloud, agent_id)
    assert not await keys_left(cloud, agent_id)
    assert not list(cloud.data_dir.rglob(f"*{agent_id}*"))


@pytest.mark.parametrize("name", ["", "   ", "x" * 300, "a\x00b", "a\x1b[31mb", "a\nb", "\u202eb"])
async def test_a_name_that_cannot_be_one_is_refused(cloud: Cloud, client: Client, name: str) -> None:
    before = await names(client)
    status, problem, _ = await post(cloud, {"agentName": name})
    assert (status, problem["code"]) == (422, "invalid_name")
    assert problem["detail"].startswith("cannot use an")
    assert await names(client) == before


async def test_the_command_line_refuses_such_names_and_names_that_are_taken(cloud: Cloud, agent: Agent) -> None:
    assert "the limit is 100" in cli(cloud, "agent", "create", "x" * 300, code=1)
    assert "name exists already; choose another name" in cli(cloud, "agent", "create", agent.agent_name, code=1)


async def test_of_two_creations_with_one_name_at_the_same_time_one_is_refused(cloud: Cloud, client: Client) -> None:
    answers = await at_once(*(post(cloud, {"agentName": "twice"}) for _ in range(3)))
    statuses = sorted(status for status, _, _ in answers)
    assert statuses == [201, 409, 409]
    assert {body["code"] for status, body, _ in answers if status == 409} == {"name_taken"}
    (made,) = [body for status, body, _ in answers if status == 201]
    assert (await names(client)).count("twice") == 1
    await delete_for_good(cloud, client, made["agentId"])


async def test_a_config_of_10_megabytes_is_refused_and_its_connection_answered(cloud: Cloud, tmp_path: Path) -> None:
    config = {"x": "y" * 10_000_000}
    status, problem, _ = await post(cloud, {"agentName": "huge", "agentConfig": config})
    assert (status, problem["code"]) == (413, "request_too_large")
    assert "an agentConfig may have" in problem["detail"]
    status, problem, _ = await post(cloud, {"agentName": "large", "agentConfig": {"x": "y" * 1_100_000}})
    assert (status, problem["code"]) == (422, "config_too_large")
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = cli(cloud, "agent", "create", "huge", "--config", str(tmp_path / "config.json"), code=1)
    assert "make it smaller" in said


async def test_a_create_that_is_sent_twice_makes_one_agent(cloud: Cloud, client: Client) -> None:
    key = "one-key-of-bad-input"
    body = {"agentName": "once"}
    together = await at_once(*(post(cloud, body, key=key) for _ in range(4)))
    done = [answer for status, answer, _ in together if status == 201]
    busy = [(answer["code"], headers["Retry-After"]) for status, answer, headers in together if status == 409]
    assert len(done) + len(busy) == 4
    assert done
    assert set(busy) <= {("idempotency_in_progress", "1")}
    status, again, headers = await post(cloud, body, key=key)
    assert (status, again) == (201, done[0])
    assert headers["Idempotent-Replayed"] == "true"
    status, problem, _ = await post(cloud, {"agentName": "another"}, key=key)
    assert (status, problem["code"]) == (422, "idempotency_mismatch")
    assert len(await nodes_of(cloud, done[0]["agentId"])) == 1
    left = await names(client)
    assert left.count("once") == 1
    assert "another" not in left
    await delete_for_good(cloud, client, done[0]["agentId"])


async def test_two_requests_at_the_same_time_with_one_key_make_one_agent(cloud: Cloud, client: Client) -> None:
    bodies = [{"agentName": "left"}, {"agentName": "right"}]
    answers = await at_once(*(post(cloud, body, key="two-bodies-of-bad-input") for body in bodies))
    assert sorted(status for status, _, _ in answers) == [201, 422]
    (made,) = [body for status, body, _ in answers if status == 201]
    assert len({"left", "right"} & set(await names(client))) == 1
    await delete_for_good(cloud, client, made["agentId"])


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_an_idempotency_key_that_cannot_be_one_is_refused(cloud: Cloud, client: Client, key: str) -> None:
    status, problem, _ = await post(cloud, {"agentName": "keyed"}, key=key)
    assert (status, problem["code"]) == (422, "invalid_idempotency_key")
    assert "keyed" not in await names(client)


async def test_a_create_ends_at_once_when_its_agent_is_deleted_meanwhile(cloud: Cloud, client: Client) -> None:
    slow = {"agentName": "unwanted", "environment": {"STUB_NEVER_LISTEN": "1"}}
    creating = asyncio.create_task(post(cloud, slow), name="create")
    async with asyncio.timeout(WITHIN_SECONDS):
        while not (found := [agent async for agent in client.agents() if agent.agent_name == "unwanted"]):
            pass
        await client.delete_agent(found[0].agent_id)
        status, body, _ = await creating
    assert status in (201, 202), body
    await delete_for_good(cloud, client, found[0].agent_id)


async def test_delete_at_any_point_of_its_way_leaves_nothing(cloud: Cloud, client: Client) -> None:
    async def until_seen_in(state: State) -> None:
        created = await client.create_agent(f"deleted-when-{state}", wait_seconds=0)
        async for event in client.events(created.agent_id):
            if event.state_to == state:
                break
        await delete_for_good(cloud, client, created.agent_id)

    await at_once(*map(until_seen_in, (State.REQUESTED, State.KEYED, State.STARTED, State.JOINED)))


async def test_another_owners_agent_is_nobodys_on_every_endpoint(cloud: Cloud, client: Client, agent: Agent) -> None:
    operator = (cloud.data_dir / "data" / "operator.token").read_text().strip()
    headers = {"Authorization": f"Bearer {operator}", "Elizacloud-Owner": "stranger"}
    tried = 0
    async with aiohttp.ClientSession(headers=headers) as session:
        async with session.get(f"{cloud.url}/openapi.json") as answer:
            paths = (await answer.json())["paths"]
        calls = [
            (path, method)
            for path in paths
            if "{agent_id}" in path and "/operator/" not in path
            for method in paths[path]
        ]
        calls += [("/api/relay/{agent_id}/api/health", method) for method in ("get", "post", "delete", "options")]
        for path, method in calls:
            answers = []
            for agent_id in (agent.agent_id, NOBODYS):
                body = {"agentName": "stolen"} if method == "patch" else BODIES.get(path.split("/")[-1])
                url = cloud.url + path.format(agent_id=agent_id)
                async with session.request(method, url, json=body) as answer:
                    text = (await answer.text()).replace(agent_id, "ID")
                    problem = json.loads(text) if text else {}
                    problem.pop("requestId", None)
                    answers.append((answer.status, problem))
            assert answers[0] == answers[1], (method, path)
            assert answers[0][0] == (401 if "/containers/" in path else 404), (method, path, answers)
            tried += 1
        assert tried >= 12
        async with session.get(f"{cloud.url}/api/v1/agents") as answer:
            assert (await answer.json())["items"] == []
    unchanged = await client.get_agent(agent.agent_id)
    assert (unchanged.agent_name, unchanged.status) == (agent.agent_name, "ready")


async def test_an_agent_that_dies_at_once_says_so_and_is_tried_again_later_each_time(
    cloud: Cloud, client: Client
) -> None:
    dying = {"environment": {"STUB_EXIT_AFTER_SECONDS": "0.01", "STUB_EXIT_CODE": "9"}}
    created = await client.create_agent("dies", options=dying)
    agent_id = created.agent_id
    agent = await until(client, agent_id, lambda agent: (told(agent, "failure") or {}).get("attempts", 0) >= 2)
    assert told(agent, "failure")["code"] == "instance_died"
    assert "exit 9" in agent.message
    assert "the next try is at" in agent.message
    assert "Look at its logs" in agent.message
    shown = cli(cloud, "agent", "show", agent_id)
    assert "exit 9" in shown or "instance" in shown
    starts = [event async for event in client.events(agent_id, following=False) if event.state_to == "started"]
    assert len(starts) >= 2
    assert len(await nodes_of(cloud, agent_id)) <= 1, "each run comes back as the same node"
    # One that listened could answer the first probe just before it dies, and then it came up.
    dying_mute = ("--env", "STUB_EXIT_AFTER_SECONDS=0.01", "--env", "STUB_NEVER_LISTEN=1")
    said = cli(cloud, "agent", "create", "dies-too", *dying_mute, "--timeout", "2", code=6)
    assert re.search(r"cannot wait longer for \w+ to be ready: it is \w+ after 2 s\. \S+", said)
    doomed = [agent.agent_id async for agent in client.agents() if agent.agent_name.startswith("dies")]
    assert len(doomed) == 2
    await at_once(*(delete_for_good(cloud, client, each) for each in doomed))


async def test_an_agent_that_never_listens_is_joined_and_says_what_it_waits_for(cloud: Cloud, client: Client) -> None:
    created = await client.create_agent("mute", options={"environment": {"STUB_NEVER_LISTEN": "1"}})
    agent = await client.get_agent(created.agent_id)
    assert (agent.status, agent.agent_ready) == ("joined", None)
    assert "waiting for its first live answer" in agent.message
    await delete_for_good(cloud, client, created.agent_id)


async def test_an_agent_that_never_gets_ready_can_be_reached_and_says_so(cloud: Cloud, client: Client) -> None:
    created = await client.create_agent("slow", options={"environment": {"STUB_NEVER_READY": "1"}})
    agent = await until(client, created.agent_id, lambda agent: agent.status == "ready")
    assert agent.agent_ready is False
    assert "says that it is not ready yet" in agent.message
    assert "not yet" in cli(cloud, "agent", "show", created.agent_id)
    async with client.relay("GET", created.agent_id, "/api/health") as answer:
        assert (await answer.json())["ready"] is False
    await delete_for_good(cloud, client, created.agent_id)


def hold_back_agents(cloud: Cloud) -> Path:
    """Let no agent's tailscaled start before the returned file is there."""
    gate, wrapper = cloud.data_dir / "gate", cloud.data_dir / "tailscaled"
    os.mkfifo(gate)
    real = os.environ["ELIZACLOUD_TAILSCALED_BIN"]
    wrapper.write_text(
        f'#!/bin/sh\ncase "$*" in */agents/*) [ -e {gate} ] && read _ < {gate};; esac\nexec {real} "$@"\n'
    )
    wrapper.chmod(0o755)
    cloud.environment = {
        "ELIZACLOUD_TAILSCALED_BIN": str(wrapper),
        "ELIZACLOUD_KEY_LIFETIME_SECONDS": "5",
        "ELIZACLOUD_POLL_SECONDS": "1",
        "ELIZACLOUD_WAKE_HOLD_SECONDS": "0.5",
    }
    return gate


async def test_an_agent_that_cannot_join_gets_a_new_key_when_its_own_is_over_or_refused(own_cloud: Cloud) -> None:
    gate = hold_back_agents(own_cloud)
    own_cloud.start()
    async with Client(own_cloud.url, SecretStr(own_cloud.token)) as client:
        created = await client.create_agent("lost", wait_seconds=1)
        agent_id = created.agent_id
        joining = await until(client, agent_id, lambda agent: agent.status == "started")
        assert "is joining the tailnet" in joining.message
        with pytest.raises(Unavailable, match="cannot reach the agent yet"):
            async with client.relay("GET", agent_id, "/api/health"):
                pass
        (key,) = await keys_of(own_cloud, agent_id)
        async for event in client.events(agent_id):
            if event.run == 2 and event.state_to == "started":
                break
        said = [event.reason async for event in client.events(agent_id, following=False)]
        assert any("did not join while its key was valid" in reason for reason in said)
        alive = {entry["id"]: is_alive(entry) for entry in await keys_of(own_cloud, agent_id)}
        assert alive[key["id"]] is False, "it is kept as long as a node could have come by it, and dead"
        assert not await nodes_of(own_cloud, agent_id)
        await delete_for_good(own_cloud, client, agent_id)

        created = await client.create_agent("refused", wait_seconds=0)
        agent_id = created.agent_id
        await until(client, agent_id, lambda agent: agent.status == "started")
        (key,) = await keys_of(own_cloud, agent_id)
        await expire(own_cloud, key)
        await asyncio.to_thread(gate.write_text, "go\n")
        gate.unlink()
        await client.wait_until(agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
        said = [event.reason async for event in client.events(agent_id, following=False)]
        assert any("cannot join the tailnet" in reason and "key" in reason for reason in said), said
        assert len(await nodes_of(own_cloud, agent_id)) == 1
        await delete_for_good(own_cloud, client, agent_id)
    assert len(await nodes(own_cloud)) == 1, "only the relay's"
    assert own_cloud.stop() == 0
    assert not own_cloud.processes()


async def expire(cloud: Cloud, key: Mapping[str, Any]) -> None:
    body = {"id": key["id"]}
    if is_027(cloud):
        body = {"user": await user_id(cloud), "key": key["key"]}
    await raw_headscale(cloud, "POST", "/api/v1/preauthkey/expire", body)
