"""What a container may tell and ask, on both listeners, and what somebody who poses as one gets."""

from __future__ import annotations

import pytest
from pydantic import SecretStr

from elizacloud.states import State
from tests.api.conftest import ANN, Served
from tests.fakes.runtime import NeverJoins


async def started(served: Served) -> tuple[str, str, str]:
    """A ready agent's id and its container's tokens."""
    agent_id = (await served.create())["agentId"]
    await served.world.until(agent_id, State.READY)
    secrets = served.world.runtime.started[-1][1]
    return agent_id, secrets.join_token.get_secret_value(), secrets.busy_token.get_secret_value()


@pytest.mark.parametrize("prefix", ["", "/api/v1"])
async def test_a_report_is_compared_with_headscales_record(served: Served, prefix: str) -> None:
    agent_id, join, _ = await started(served)
    path = f"{prefix}/containers/{agent_id}/networking"
    ipv4, ipv6 = served.world.nodes[0].ipv4, served.world.nodes[0].ipv6
    for address in (ipv4, ipv6):
        same = await served.call("POST", path, token=join, json={"headscaleIp": address})
        assert (same.status, same.body["status"]) == (200, "confirmed")
    other = await served.call("POST", path, token=join, json={"headscaleIp": "100.64.9.9"})
    assert (other.status, other.body["code"]) == (409, "address_differs")
    assert (await served.world.record(agent_id)).generation.ipv4 == ipv4
    for address in ("", "nonsense", "100.64.0.7/32"):
        bad = await served.call("POST", path, token=join, json={"headscaleIp": address})
        assert (bad.status, bad.body["code"]) == (422, "invalid_address")


async def test_a_report_before_headscale_knows_is_accepted(served: Served) -> None:
    served.world.runtime.__class__ = NeverJoins
    agent_id = (await served.call("POST", "/api/v1/agents?wait=0", json={"agentName": "ada"})).body["agentId"]
    await served.world.until(agent_id, State.STARTED)
    join = served.world.runtime.started[-1][1].join_token.get_secret_value()
    path = f"/containers/{agent_id}/networking"
    answer = await served.call("POST", path, token=join, json={"headscaleIp": "100.64.0.1"})
    assert (answer.status, answer.body["status"]) == (202, "unknown")
    assert (await served.world.record(agent_id)).generation.ipv4 is None


async def test_no_other_token_is_a_containers(served: Served) -> None:
    agent_id, join, busy = await started(served)
    for call, right in (("networking", join), ("rekey", join), ("busy", busy)):
        wrong = busy if right == join else join
        for token in (None, ANN, wrong, "ecj_nonsense"):
            body = {"headscaleIp": "100.64.0.1"} if call == "networking" else {}
            answer = await served.call("POST", f"/containers/{agent_id}/{call}", token=token, json=body)
            nobody = await served.call("POST", f"/containers/zzzz/{call}", token=token, json=body)
            assert answer.status == nobody.status == 401
            assert answer.body == nobody.body


async def test_a_container_that_needs_no_key_gets_none(served: Served) -> None:
    agent_id, join, _ = await started(served)
    answer = await served.call("POST", f"/containers/{agent_id}/rekey", token=join)
    assert (answer.status, answer.body["code"]) == (409, "not_needed")
    assert served.world.live_keys == []


async def test_a_container_whose_node_is_gone_gets_one_key(served: Served) -> None:
    agent_id, join, _ = await started(served)
    await served.world.headscale.delete_node(served.world.nodes[0].id)
    answer = await served.call("POST", f"/containers/{agent_id}/rekey", token=join)
    assert (answer.status, answer.body["headscaleUrl"]) == (200, "https://hs.test")
    node = await served.world.headscale.join(SecretStr(answer.body["headscaleAuthKey"]), hostname="again")
    served.world.see(node)
    record = await served.world.until(agent_id, State.READY)
    assert record.generation.node_id == node.id
    assert record.generation.number == 1
    await served.world.headscale.delete_node(node.id)
    soon = await served.call("POST", f"/containers/{agent_id}/rekey", token=join)
    assert (soon.status, soon.body["code"]) == (429, "rekeyed_too_soon")
    assert int(soon.headers["Retry-After"]) > 0


async def test_a_busy_lease_is_bounded(served: Served) -> None:
    agent_id, _, busy = await started(served)
    answer = await served.call("POST", f"/containers/{agent_id}/busy", token=busy, json={"seconds": 60})
    assert (answer.status, "busyUntil" in answer.body) == (200, True)
    for seconds in (-1, 3601, 1e300):
        bad = await served.call("POST", f"/containers/{agent_id}/busy", token=busy, json={"seconds": seconds})
        assert bad.status == 422


async def test_the_containers_own_listener_serves_nothing_else(served_containers: Served) -> None:
    for path in ("/api/v1/agents", "/openapi.json", "/docs", "/healthz", "/login", "/api/v1/containers/x/busy"):
        answer = await served_containers.call("GET", path, token=None)
        assert (answer.status, answer.body["code"]) == (404, "no_such_path")
    answer = await served_containers.call(
        "POST", "/containers/x/networking", token="ecj_x", json={"headscaleIp": "1.1.1.1"}
    )
    assert answer.status == 401
