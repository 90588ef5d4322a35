"""Tokens over HTTP: shown once, never more than the giver has, gone at once everywhere."""

from __future__ import annotations

import pytest

from tests.api.conftest import BOB, PLATFORM, Served

TOKENS = "/api/v1/tokens"


async def test_a_token_works_until_it_is_revoked(served: Served) -> None:
    made = await served.call("POST", TOKENS, json={"name": "laptop"})
    assert made.status == 201
    value, token_id = made.body["token"], made.body["tokenId"]
    assert made.body["scopes"] == ["owner"]
    assert (await served.call("GET", TOKENS, token=value)).status == 200
    listed = await served.call("GET", TOKENS)
    assert token_id in [item["tokenId"] for item in listed.body["items"]]
    assert value not in str(listed.body)
    assert any(known.token_id == token_id for known in served.world.relays.table.tokens.values())
    for _ in range(2):
        assert (await served.call("DELETE", f"{TOKENS}/{token_id}")).status == 204
    refused = await served.call("GET", TOKENS, token=value)
    assert (refused.status, refused.body["code"]) == (401, "invalid_token")
    assert all(known.token_id != token_id for known in served.world.relays.table.tokens.values())


async def test_another_owners_token_is_not_found(served: Served) -> None:
    token_id = (await served.call("POST", TOKENS, json={"name": "laptop"})).body["tokenId"]
    answer = await served.call("DELETE", f"{TOKENS}/{token_id}", token=BOB)
    assert (answer.status, answer.body["code"]) == (404, "token_not_found")


async def test_only_a_service_token_makes_service_tokens(served: Served) -> None:
    body = {"name": "x", "scopes": ["service"]}
    assert (await served.call("POST", TOKENS, json=body)).status == 403
    assert (await served.call("POST", TOKENS, token=PLATFORM, json=body)).status == 201
    named = await served.call("POST", TOKENS, token=PLATFORM, json={"name": "x"}, Elizacloud_Owner="user-1")
    assert (named.body["ownerId"], named.body["scopes"]) == ("user-1", ["owner"])


async def test_a_token_for_one_agent_manages_nothing(served: Served) -> None:
    agent_id = (await served.create())["agentId"]
    made = await served.call("POST", f"/api/v1/agents/{agent_id}/tokens", json={"name": "p", "expiresInSeconds": 60})
    assert (made.status, made.body["scopes"], made.body["agentId"]) == (201, ["relay"], agent_id)
    assert made.body["expiresAt"] is not None
    for method, path in (("GET", f"/api/v1/agents/{agent_id}"), ("GET", TOKENS), ("POST", TOKENS)):
        answer = await served.call(
            method, path, token=made.body["token"], json={"name": "x"} if method == "POST" else None
        )
        assert (answer.status, answer.body["code"]) == (403, "scope")


async def test_deleting_an_agent_revokes_its_tokens(served: Served) -> None:
    agent_id = (await served.create())["agentId"]
    made = await served.call("POST", f"/api/v1/agents/{agent_id}/tokens", json={"name": "p"})
    await served.call("DELETE", f"/api/v1/agents/{agent_id}")
    await served.world.until(agent_id, lambda agent: agent.state == "tombstone")
    assert (await served.call("GET", TOKENS, token=made.body["token"])).status == 401


@pytest.mark.parametrize(
    "body",
    [
        {}, {"name": ""}, {"name": "\n"}, {"name": "x" * 101}, {"name": "x", "scopes": []}, {"name": "x", "scopes": ["root"]},
        {"name": "x", "expiresInSeconds": 0}, {"name": "x", "expiresInSeconds": 1e300}, {"name": "x", "extra": 1},
        {"name": "x", "kind": "session"}, {"name": "x", "kind": ["api"]}, {"kind": None}, {"kind": "jwt", "scopes": ["service"]},
        {"kind": "jwt", "expiresInSeconds": 3601}, {"kind": "jwt", "expiresInSeconds": 0}, [], "jwt",
    ],
)  # fmt: skip
async def test_a_token_that_cannot_be_made_is_422(served: Served, body: object) -> None:
    assert (await served.call("POST", TOKENS, json=body)).status == 422
