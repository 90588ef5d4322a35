"""/api/v1/operator: who may, what is shown, what is done."""

from __future__ import annotations

from typing import Any

import pytest

from elizacloud.states import State
from elizacloud.upstreams import Probe, Upstream
from tests.agents.reconcile.test_sweep import leave_behind
from tests.api.conftest import ANN, PLATFORM, Served
from tests.fakes.store import HOST


async def sweep(served: Served, **body: Any) -> Any:
    answer = await served.call("POST", "/api/v1/operator/sweep", token=PLATFORM, json=body)
    assert answer.status == 200, answer.body
    return answer.body


async def test_only_a_service_token_may(served: Served) -> None:
    agent_id = (await served.create())["agentId"]
    for method, path, body in (
        ("POST", "/api/v1/operator/sweep", {}),
        ("GET", f"/api/v1/operator/agents/{agent_id}", None),
    ):
        assert (await served.call(method, path, token=None, json=body)).status == 401
        refused = await served.call(method, path, token=ANN, json=body)
        assert (refused.status, refused.body["code"]) == (403, "operator_only")
        assert (await served.call(method, path, token=PLATFORM, json=body)).status == 200


async def test_a_dry_run_tells_and_does_nothing(served: Served) -> None:
    world = served.world
    await leave_behind(world)
    swept = await sweep(served, dryRun=True)
    assert {found["kind"] for found in swept["findings"]} >= {"instance of no agent", "node of no agent"}
    assert {found["outcome"] for found in swept["findings"]} == {"wait"}
    assert (swept["heldBecause"], swept["dryRun"]) == (None, True)
    assert (len(world.instances), len(world.nodes)) == (1, 1)


async def test_an_agent_is_shown_as_store_runtime_and_headscale_see_it(served: Served) -> None:
    agent_id = (await served.create())["agentId"]
    world = served.world
    await world.until(agent_id, lambda agent: agent.state is State.READY and not world.live_keys)
    await sweep(served)  # one that met it in the middle of its creation may have seen a key that was not stored yet
    shown = (await served.call("GET", f"/api/v1/operator/agents/{agent_id}", token=PLATFORM)).body
    assert shown["agent"]["agentId"] == agent_id
    [generation], run = shown["store"]["generations"], shown["store"]["run"]
    [instance], [volume] = shown["runtime"]["instances"], shown["runtime"]["volumes"]
    [node], [key] = shown["headscale"]["nodes"], shown["headscale"]["keys"]
    assert (instance["ref"], volume["generation"]) == (run["ref"], 1)
    assert shown["runtime"]["hostId"] == HOST.id
    assert (node["nodeId"], key["keyId"]) == (generation["nodeId"], generation["keyId"])
    assert shown["findings"] == []


async def test_what_does_not_answer_is_told_and_not_shown_as_nothing(served: Served) -> None:
    agent_id = (await served.create())["agentId"]
    served.world.headscale.down = True
    shown = (await served.call("GET", f"/api/v1/operator/agents/{agent_id}", token=PLATFORM)).body
    assert "down" in shown["headscale"]["error"]
    assert shown["runtime"]["error"] is None
    assert len(shown["runtime"]["instances"]) == 1
    swept = await served.call("POST", "/api/v1/operator/sweep", token=PLATFORM, json={})
    assert swept.status == 503


async def test_an_agent_that_is_up_is_asked_by_a_relay_and_one_that_is_not_is_left_alone(served: Served) -> None:
    agent_id = (await served.create())["agentId"]

    async def answer() -> Any:
        return (await served.call("GET", f"/api/v1/operator/agents/{agent_id}", token=PLATFORM)).body["answer"]

    assert await answer() == {"status": 200, "ready": True, "error": None}
    served.world.relays.reach = silent
    assert await answer() == {"status": None, "ready": None, "error": "nothing listens on its port"}
    served.world.relays.linked = False
    assert "no relay worker is linked" in (await answer())["error"]
    served.world.relays.linked = True
    await served.call("POST", f"/api/v1/agents/{agent_id}/stop")
    await served.world.until(agent_id, State.STOPPED)
    asked = len(served.world.relays.probed)
    assert await answer() is None
    assert len(served.world.relays.probed) == asked


def silent(_: Upstream) -> Probe:
    return Probe(None, error="nothing listens on its port")


@pytest.mark.parametrize("agent_id", ["nothing", "b" * 16, "..%2f"])
async def test_no_such_agent(served: Served, agent_id: str) -> None:
    assert (await served.call("GET", f"/api/v1/operator/agents/{agent_id}", token=PLATFORM)).status == 404
