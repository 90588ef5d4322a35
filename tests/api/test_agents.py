"""/api/v1/agents over HTTP: what is answered, to whom, and what happens twice, at once, too big and too wrong."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from elizacloud.agents.wishes import CONFIG_MAX_BYTES
from elizacloud.states import State
from tests.api.conftest import BOB, PLATFORM, Served
from tests.fakes.runtime import NeverJoins

AGENTS = "/api/v1/agents"


async def test_create_answers_with_the_seeds_fields_once_joined(served: Served) -> None:
    answer = await served.call("POST", AGENTS, json={"agentName": "ada", "agentConfig": {"theme": "dark"}})
    assert answer.status == 201
    assert answer.body["agentName"] == "ada"
    assert answer.body["headscaleIp"].startswith("100.64.")
    assert answer.body["networking"] == {"headscaleIp": answer.body["headscaleIp"]}
    assert answer.body["status"] in ("joined", "ready")
    assert answer.headers["Location"] == f"{AGENTS}/{answer.body['agentId']}"
    assert "environment" not in answer.body
    assert served.world.runtime.started[0][0].agent.config == {"theme": "dark"}


@pytest.mark.parametrize(
    ("query", "headers"), [("?wait=0", {}), ("", {"Prefer": "respond-async"}), ("", {"Prefer": "wait=0"})]
)
async def test_create_can_answer_at_once(served: Served, query: str, headers: dict[str, str]) -> None:
    answer = await served.call("POST", AGENTS + query, json={"agentName": "ada"}, **headers)
    assert answer.status == 202
    assert answer.body["headscaleIp"] is None
    record = await served.world.until(answer.headers["Location"].rpartition("/")[2], State.READY)
    shown = await served.call("GET", answer.headers["Location"])
    assert shown.body["networking"]["headscaleIp"] == record.generation.ipv4
    assert shown.body["agentReady"] is True
    assert shown.body["message"] == "It is ready."


async def test_an_agent_that_does_not_join_in_time_is_accepted_and_says_why(served: Served) -> None:
    served.world.runtime.__class__ = NeverJoins
    answer = await served.call("POST", AGENTS + "?wait=0.2", json={"agentName": "ada"})
    assert answer.status == 202
    assert answer.body["status"] == "started"
    assert "joining the tailnet" in answer.body["message"]


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"agentName": ""}, "invalid_name"),
        ({"agentName": "  "}, "invalid_name"),
        ({"agentName": "x" * 300}, "invalid_name"),
        ({"agentName": "a\u0000b"}, "invalid_name"),
        ({"agentName": "a\u202eb"}, "invalid_name"),
        ({"agentName": " ada"}, "invalid_name"),
        ({"agentName": 7}, "invalid"),
        ({}, "invalid"),
        ([], "invalid"),
        ({"agentName": "ada", "nonsense": 1}, "invalid"),
        ({"agentName": "ada", "agentConfig": []}, "invalid"),
        ({"agentName": "ada", "port": 0}, "invalid"),
        ({"agentName": "ada", "health": "no-slash"}, "invalid_health"),
        ({"agentName": "ada", "environment": {"HEADSCALE_AUTH_KEY": "x"}}, "reserved_environment"),
        ({"agentName": "ada", "secrets": {"ELIZA_API_TOKEN": "x"}}, "reserved_environment"),
        ({"agentName": "ada", "environment": {"A": "1"}, "secrets": {"A": "2"}}, "invalid_environment"),
        ({"agentName": "ada", "environment": {"A B": "1"}}, "invalid_environment"),
        ({"agentName": "ada", "agentConfig": {"a": "x" * CONFIG_MAX_BYTES}}, "config_too_large"),
        ({"agentName": "ada", "ownerId": BOB}, "owner_not_allowed"),
    ],
)
async def test_a_body_that_cannot_be_accepted_is_told(served: Served, body: Any, code: str) -> None:
    answer = await served.call("POST", AGENTS, json=body)
    assert answer.status == (403 if code == "owner_not_allowed" else 422)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.body["code"] == code
    assert answer.body["detail"].startswith("cannot ")
    assert served.world.instances == []


async def test_a_refused_body_is_not_repeated_in_the_answer(served: Served) -> None:
    secret = "canary-" + "7" * 30
    for body in ({"agentName": "ada", "secrets": secret}, {"agentName": "ada", "secrets": {"A": [secret]}}):
        answer = await served.call("POST", AGENTS, json=body)
        assert answer.status == 422
        assert secret not in str(answer.body)


async def test_bytes_that_are_not_json_are_400(served: Served) -> None:
    for data in (b'{"agentName": ', b"\xff\xfe", b"[" * 100_000):
        answer = await served.call("POST", AGENTS, data=data, Content_Type="application/json")
        assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")


async def test_ten_megabytes_are_413(served: Served) -> None:
    answer = await served.call("POST", AGENTS, json={"agentName": "ada", "agentConfig": {"a": "x" * 10_000_000}})
    assert (answer.status, answer.body["code"]) == (413, "request_too_large")
    assert str(CONFIG_MAX_BYTES) in answer.body["detail"]


async def test_a_body_of_unknown_length_is_bounded_too(served: Served) -> None:
    async def chunks() -> Any:
        for _ in range(100):
            yield b" " * 65536

    answer = await served.call("POST", AGENTS, data=chunks(), Content_Type="application/json")
    assert answer.status == 413


async def test_a_name_is_unique_among_an_owners_agents(served: Served) -> None:
    first = await served.create("ada")
    again = await served.call("POST", AGENTS, json={"agentName": "ada"})
    assert (again.status, again.body["code"]) == (409, "name_taken")
    assert (await served.call("POST", AGENTS, token=BOB, json={"agentName": "ada"})).status == 201
    await served.call("DELETE", f"{AGENTS}/{first['agentId']}")
    assert (await served.call("POST", AGENTS, json={"agentName": "ada"})).status == 201


async def test_of_ten_creates_of_one_name_at_once_one_wins(served: Served) -> None:
    async with asyncio.TaskGroup() as tasks:
        calls = [tasks.create_task(served.call("POST", AGENTS, json={"agentName": "ada"})) for _ in range(10)]
    assert sorted(call.result().status for call in calls) == [201] + [409] * 9


async def test_an_idempotency_key_makes_one_agent(served: Served) -> None:
    first = await served.call("POST", AGENTS, json={"agentName": "ada"}, Idempotency_Key="k")
    again = await served.call("POST", AGENTS, json={"agentName": "ada"}, Idempotency_Key="k")
    other = await served.call("POST", AGENTS, json={"agentName": "bea"}, Idempotency_Key="k")
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["Location"] == first.headers["Location"]
    assert (other.status, other.body["code"]) == (422, "idempotency_mismatch")
    assert len(served.world.instances) == 1


async def test_an_idempotency_key_of_a_refused_request_can_be_used_again(served: Served) -> None:
    assert (await served.call("POST", AGENTS, json={"agentName": ""}, Idempotency_Key="k")).status == 422
    assert (await served.call("POST", AGENTS, json={"agentName": "ada"}, Idempotency_Key="k")).status == 201


async def test_two_at_once_with_one_idempotency_key_make_one_agent(served: Served) -> None:
    async with asyncio.TaskGroup() as tasks:
        body = {"agentName": "ada"}
        calls = [tasks.create_task(served.call("POST", AGENTS, json=body, Idempotency_Key="k")) for _ in range(2)]
    answers = sorted((call.result() for call in calls), key=lambda answer: answer.status)
    assert answers[0].status == 201
    assert answers[1].body == answers[0].body or answers[1].body["code"] == "idempotency_in_progress"
    assert len(served.world.instances) == 1


async def test_another_owners_agent_is_not_found_anywhere(served: Served) -> None:
    agent_id = (await served.create())["agentId"]
    for method, rest in (
        ("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/start"), ("POST", "/stop"), ("POST", "/restart"),
        ("GET", "/events"), ("GET", "/logs"), ("POST", "/tokens"),
    ):  # fmt: skip
        body = {"name": "x"} if rest == "/tokens" else {} if method == "PATCH" else None
        theirs = await served.call(method, f"{AGENTS}/{agent_id}{rest}", token=BOB, json=body)
        nobodys = await served.call(method, f"{AGENTS}/zzzzzzzzzzzzzzzz{rest}", token=BOB, json=body)
        assert (theirs.status, theirs.body["code"]) == (404, "agent_not_found")
        assert theirs.body["detail"].replace(agent_id, "") == nobodys.body["detail"].replace("z" * 16, "")
    assert (await served.call("GET", AGENTS, token=BOB)).body["items"] == []


async def test_a_service_token_names_the_owner(served: Served) -> None:
    made = await served.call("POST", AGENTS, token=PLATFORM, json={"agentName": "ada", "ownerId": "user-1"})
    also = await served.call("POST", AGENTS, token=PLATFORM, json={"agentName": "bea"}, Elizacloud_Owner="user-1")
    assert (made.status, made.body["ownerId"], also.body["ownerId"]) == (201, "user-1", "user-1")
    listed = await served.call("GET", AGENTS, token=PLATFORM, Elizacloud_Owner="user-1")
    assert [item["agentName"] for item in listed.body["items"]] == ["bea", "ada"]
    assert (await served.call("GET", f"{AGENTS}/{made.body['agentId']}", token=PLATFORM)).status == 404
    two = await served.call(
        "POST", AGENTS, token=PLATFORM, json={"agentName": "c", "ownerId": "user-1"}, Elizacloud_Owner="user-2"
    )
    assert (two.status, two.body["code"]) == (409, "two_owners")
    bad = await served.call("GET", AGENTS, token=PLATFORM, Elizacloud_Owner="../etc")
    assert (bad.status, bad.body["code"]) == (422, "invalid_owner")


@pytest.mark.parametrize(
    ("token", "code"), [(None, "no_credential"), ("ec_wrong", "invalid_token"), ("a b", "malformed_credential")]
)
async def test_without_a_good_token_nothing_is_told(served: Served, token: str | None, code: str) -> None:
    answer = await served.call("GET", AGENTS, token=token)
    assert (answer.status, answer.body["code"]) == (401, code)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


async def test_a_list_has_pages(served: Served) -> None:
    for name in "abcde":
        await served.create(name)
    seen, path = [], f"{AGENTS}?limit=2"
    while path:
        page = await served.call("GET", path)
        seen += [item["agentName"] for item in page.body["items"]]
        link = page.headers.get("Link", "")
        assert bool(link) == (page.body["next"] is not None)
        path = link.removeprefix("<").partition(">")[0]
    assert seen == list("edcba")
    for cursor in ("x", "%00", "eyJh"):
        bad = await served.call("GET", f"{AGENTS}?cursor={cursor}")
        assert (bad.status, bad.body["code"]) == (404, "invalid_cursor")


async def test_changes_are_kept_and_take_effect_at_the_next_start(served: Served) -> None:
    agent_id = (await served.create())["agentId"]
    await served.world.until(agent_id, State.READY)
    changed = await served.call("PATCH", f"{AGENTS}/{agent_id}", json={"agentName": "bea", "environment": {"A": "1"}})
    assert (changed.status, changed.body["agentName"]) == (200, "bea")
    await served.call("POST", f"{AGENTS}/{agent_id}/restart")
    await served.world.until(agent_id, lambda agent: agent.run == 2 and agent.state is State.READY)
    assert served.world.runtime.started[-1][0].agent.environment == {"A": "1"}
    cleared = await served.call("PATCH", f"{AGENTS}/{agent_id}", json={"environment": None})
    assert (cleared.status, cleared.body["agentName"]) == (200, "bea")
    assert (await served.world.record(agent_id)).agent.spec.environment == {}


async def test_stop_start_and_delete_are_accepted_twice(served: Served) -> None:
    agent_id = (await served.create())["agentId"]
    await served.world.until(agent_id, State.READY)
    for verb, state in (("stop", State.STOPPED), ("start", State.READY)):
        for _ in range(2):
            assert (await served.call("POST", f"{AGENTS}/{agent_id}/{verb}")).status == 202
        await served.world.until(agent_id, state)
    for _ in range(2):
        gone = await served.call("DELETE", f"{AGENTS}/{agent_id}")
        assert (gone.status, gone.body["wanted"]) == (202, "deleted")
    for verb in ("start", "stop", "restart"):
        refused = await served.call("POST", f"{AGENTS}/{agent_id}/{verb}")
        assert (refused.status, refused.body["code"]) == (409, "deleting")
    await served.world.until(agent_id, State.GONE)
    assert (await served.call("GET", f"{AGENTS}/{agent_id}")).status == 404
    assert (await served.call("DELETE", f"{AGENTS}/{agent_id}")).status == 404
    assert (served.world.instances, served.world.nodes, served.world.keys) == ([], [], [])


async def test_an_external_agent_is_told_its_environment_once(served: Served) -> None:
    made = await served.call("POST", AGENTS, json={"agentName": "ada", "external": True})
    assert made.status == 201
    environment = made.body["environment"]
    assert environment["HEADSCALE_URL"] == "https://hs.test"
    assert environment["CONTAINER_ID"] == made.body["agentId"]
    assert environment["HEADSCALE_AUTH_KEY"].startswith("hskey-auth-")
    assert environment["ELIZACLOUD_JOIN_TOKEN"].startswith("ecj_")
    shown = await served.call("GET", f"{AGENTS}/{made.body['agentId']}")
    assert "environment" not in shown.body
    assert "started by hand" in shown.body["message"]
    assert served.world.instances == []
    node = await served.world.headscale.join(environment["HEADSCALE_AUTH_KEY"])
    served.world.see(node)
    record = await served.world.until(made.body["agentId"], lambda agent: agent.state is not State.STARTED)
    assert record.generation.node_id == node.id


async def test_one_that_was_not_started_in_time_gets_a_new_environment_at_restart(served: Served) -> None:
    made = await served.call("POST", AGENTS, json={"agentName": "ada", "external": True})
    again = await served.call("POST", f"{AGENTS}/{made.body['agentId']}/restart")
    assert again.status == 202
    old, new = made.body["environment"], again.body["environment"]
    assert new["HEADSCALE_AUTH_KEY"] != old["HEADSCALE_AUTH_KEY"]
    assert len(served.world.live_keys) == 1
    logs = await served.call("GET", f"{AGENTS}/{made.body['agentId']}/logs")
    assert (logs.status, logs.body["code"]) == (409, "no_instance")


async def test_a_runtime_that_does_not_isolate_refuses_a_second_owner(served: Served) -> None:
    served.world.runtime.isolates = False
    await served.create()
    refused = await served.call("POST", AGENTS, token=BOB, json={"agentName": "bob's"})
    assert (refused.status, refused.body["code"]) == (409, "not_isolated")
    assert (await served.call("POST", AGENTS, token=BOB, json={"agentName": "b", "external": True})).status == 201
