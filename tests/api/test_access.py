"""Tickets, JWTs and their keys over HTTP: the right answers, and the attacks."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from elizacloud.api.tickets import agent_origin
from elizacloud.auth import jose
from elizacloud.auth.jwt import Verifier
from elizacloud.auth.tokens import token_sha256
from tests.agents.world import now
from tests.api.conftest import BOB, PLATFORM, Served
from tests.auth.conftest import a_forge

TOKENS = "/api/v1/tokens"


async def an_agent(served: Served) -> str:
    return str((await served.create())["agentId"])


def tickets(agent_id: str) -> str:
    return f"/api/v1/agents/{agent_id}/tickets"


async def test_a_ticket_and_where_to_open_it(served: Served) -> None:
    agent_id = await an_agent(served)
    made = await served.call("POST", tickets(agent_id))
    assert (made.status, made.headers["Cache-Control"]) == (201, "no-store")
    assert set(made.body) == {"ticket", "url", "expiresAt"}
    url = urlsplit(made.body["url"])
    assert (url.scheme, url.netloc, url.path) == ("http", f"{agent_id}.localhost", "/.elizacloud/session")
    assert parse_qs(url.query) == {"elizacloud_ticket": [made.body["ticket"]]}


@pytest.mark.parametrize(
    ("base", "origin"),
    [
        ("https://cloud.example", "https://a.agents.example"),
        ("https://cloud.example:8443/x", "https://a.agents.example:8443"),
        ("http://127.0.0.1:8420", "http://a.agents.example:8420"),
        ("http://[::1]:8420", "http://a.agents.example:8420"),
    ],
)
def test_an_agents_host_has_the_front_doors_scheme_and_port(base: str, origin: str) -> None:
    assert agent_origin(base, "a", "agents.example") == origin


async def test_who_may_ask_for_a_ticket(served: Served) -> None:
    agent_id, other_id = await an_agent(served), str((await served.create("other"))["agentId"])
    made = await served.call("POST", f"/api/v1/agents/{agent_id}/tokens", json={})
    bound = made.body["token"]
    assert (await served.call("POST", tickets(agent_id), token=bound)).status == 201
    as_ann = await served.call("POST", tickets(agent_id), token=PLATFORM, Elizacloud_Owner="ann")
    assert as_ann.status == 201
    for token, headers, target in (
        (bound, {}, other_id),
        (BOB, {}, agent_id),
        (PLATFORM, {}, agent_id),
        (PLATFORM, {"Elizacloud_Owner": "bob"}, agent_id),
    ):
        answer = await served.call("POST", tickets(target), token=token, **headers)
        assert (answer.status, answer.body["code"]) == (404, "agent_not_found")
    assert (await served.call("POST", tickets(agent_id), token=None)).status == 401
    named = await served.call("POST", tickets(agent_id), token=BOB, Elizacloud_Owner="ann")
    assert (named.status, named.body["code"]) == (403, "owner_not_allowed")


async def test_deleting_an_agent_ends_its_tickets_and_sessions(served: Served) -> None:
    agent_id = await an_agent(served)
    first, second = [(await served.call("POST", tickets(agent_id))).body["ticket"] for _ in range(2)]
    redeem = served.credentials.tickets.redeem
    session = (await redeem(token_sha256(first), agent_id, session=True)).token
    relays = served.world.relays
    assert session.token_id in relays.table.token_ids
    await served.call("DELETE", f"/api/v1/agents/{agent_id}")
    await served.world.until(agent_id, lambda agent: agent.state == "tombstone")
    assert session.token_id not in relays.table.token_ids
    with pytest.raises(Exception, match="cannot take this ticket"):
        await redeem(token_sha256(second), agent_id, session=True)


async def test_sessions_are_not_listed_and_end_with_their_token(served: Served) -> None:
    agent_id = await an_agent(served)
    made = (await served.call("POST", TOKENS, json={"name": "phone"})).body
    ticket = (await served.call("POST", tickets(agent_id), token=made["token"])).body["ticket"]
    redemption = await served.credentials.tickets.redeem(token_sha256(ticket), agent_id, session=True)
    listed = await served.call("GET", TOKENS)
    assert redemption.token.token_id not in str(listed.body)
    await served.call("DELETE", f"{TOKENS}/{made['tokenId']}")
    assert redemption.token.token_id not in served.world.relays.table.token_ids


async def test_a_jwt_for_one_agent_and_for_all(served: Served) -> None:
    agent_id = await an_agent(served)
    verifier = Verifier(lambda: served.world.relays.table.issuers, now)
    for path, bound in ((f"/api/v1/agents/{agent_id}/tokens", agent_id), (TOKENS, None)):
        made = await served.call("POST", path, json={"kind": "jwt", "expiresInSeconds": 60})
        assert (made.status, made.headers["Cache-Control"]) == (201, "no-store")
        assert (made.body["kind"], made.body["agentId"], made.body["scopes"]) == ("jwt", bound, ["relay"])
        claims = verifier.verify(made.body["token"])
        assert (claims.owner_id, claims.agent_id) == ("ann", bound)
        assert (claims.expires_at - now()).total_seconds() <= 60
        assert made.body["tokenId"] not in str((await served.call("GET", TOKENS)).body)
        refused = await served.call("GET", TOKENS, token=made.body["token"])
        assert (refused.status, refused.body["code"]) == (403, "scope")
    other = await served.call("POST", f"/api/v1/agents/{agent_id}/tokens", token=BOB, json={"kind": "jwt"})
    assert other.status == 404


async def test_the_keys_are_published_for_everyone(served: Served) -> None:
    answer = await served.call("GET", "/.well-known/jwks.json", token=None)
    assert (answer.status, answer.headers["Cache-Control"]) == (200, "public, max-age=300")
    made = await served.call("POST", TOKENS, json={"kind": "jwt"})
    kid = jose.read(made.body["token"]).header["kid"]
    (key,) = [key for key in answer.body["keys"] if key["kid"] == kid]
    jose.check_signature(made.body["token"], jose.public_key(key))
    assertion = served.world.relays.table.assertion_key
    assert assertion is not None
    assert assertion.kid in {key["kid"] for key in answer.body["keys"]}
    assert not any("d" in key for key in answer.body["keys"])


def forged(**changes: Any) -> str:
    instant = int(now().timestamp())
    claims = {"iss": "https://cloud.example", "sub": "ann", "aud": "agents", "iat": instant, "exp": instant + 60}
    return a_forge("k").signed(claims | {"jti": "j"} | changes)


async def test_a_forged_jwt_is_401(served: Served) -> None:
    for bearer, code in (
        (forged(), "invalid_token"),
        (forged(iss="https://thief.example"), "invalid_token"),
        ("ey" + "A" * 8200 + ".AA.AA", "malformed_credential"),
    ):
        answer = await served.call("GET", TOKENS, token=bearer)
        assert (answer.status, answer.body["code"]) == (401, code)
        assert bearer not in json.dumps(answer.body)


async def test_a_ticket_is_no_bearer(served: Served) -> None:
    ticket = (await served.call("POST", tickets(await an_agent(served)))).body["ticket"]
    answer = await served.call("GET", TOKENS, token=ticket)
    assert (answer.status, answer.body["code"]) == (401, "misplaced_credential")
