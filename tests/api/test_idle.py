"""Idle policies over HTTP, and pausing."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import BOB, Served

POLICY = {
    "idleAfterSeconds": 900,
    "stopAfterSeconds": "never",
    "schedule": {"timezone": "Europe/Berlin", "awake": ["mon-fri 08:00-18:00"]},
}


async def test_an_owners_policy_is_kept_and_is_their_own(served: Served) -> None:
    path = "/api/v1/idle-policy"
    assert (await served.call("GET", path)).body == {}
    put = await served.call("PUT", path, json=POLICY)
    assert (put.status, put.body) == (200, POLICY)
    assert (await served.call("GET", path)).body == POLICY
    assert (await served.call("GET", path, token=BOB)).body == {}
    assert (await served.call("PUT", path, json={})).body == {}
    assert (await served.call("GET", path)).body == {}
    assert (await served.call("GET", path, token=None)).status == 401


async def test_an_agents_policy_is_shown_and_changed(served: Served) -> None:
    made = await served.create(idlePolicy=POLICY)
    path = f"/api/v1/agents/{made['agentId']}"
    assert made["idlePolicy"] == POLICY
    changed = await served.call("PATCH", path, json={"idlePolicy": {"idleAfterSeconds": "never"}})
    assert changed.body["idlePolicy"] == {"idleAfterSeconds": "never"}
    assert (await served.call("PATCH", path, json={"idlePolicy": None})).body["idlePolicy"] == {}


@pytest.mark.parametrize(
    "policy",
    [
        {"idleAfterSeconds": 0},
        {"idleAfterSeconds": "sometimes"},
        {"idleAfterSeconds": "60"},
        {"stopAfterSeconds": -1},
        {"stopAfterSeconds": 1e300},
        {"idle_after": 1},
        {"schedule": {"awake": []}},
        {"schedule": {"awake": ["mon 8-18"]}},
        {"schedule": {"timezone": "Mars/Olympus", "awake": ["mon 08:00-18:00"]}},
        {"schedule": "always"},
        [],
        "never",
    ],
)
async def test_what_cannot_be_understood_is_refused(served: Served, policy: Any) -> None:
    for method, path, body in (
        ("PUT", "/api/v1/idle-policy", policy),
        ("POST", "/api/v1/agents", {"agentName": "ada", "idlePolicy": policy}),
    ):
        answer = await served.call(method, path, json=body)
        assert answer.status == 422, (path, answer.body)
        assert answer.body["detail"]


async def test_pausing(served: Served) -> None:
    made = await served.create()
    path = f"/api/v1/agents/{made['agentId']}"
    paused = await served.call("POST", f"{path}/pause")
    assert (paused.status, paused.body["wanted"]) == (202, "paused")
    assert (await served.call("POST", f"{path}/pause", token=BOB)).status == 404
    await served.call("POST", f"{path}/stop")
    refused = await served.call("POST", f"{path}/pause")
    assert (refused.status, refused.body["code"]) == (409, "not_running")
