"""What tells an agent who is calling, and that it is no credential for us."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from elizacloud.auth import jose
from elizacloud.auth.jwt import ASSERTION_TYP
from elizacloud.relay.callers.assertion import Assertions
from elizacloud.relay.callers.caller import Caller, Credential, Kind
from elizacloud.upstreams import AssertionKey, KnownIssuer, UpstreamTable
from tests.relay.browsers import COOKIE, SWITCHED, TICKET, UPGRADE, by_host, signed_in, ticket_for
from tests.relay.conftest import AGENT, OTHER_AGENT, OWNER, TOKEN, TOKENS, Cloud, RawAgent, request

ISSUER = "https://cloud.test"
KEY_ID, PRIVATE = jose.new_private_key()
KEY = AssertionKey(f"{ISSUER}/assertion", KEY_ID, PRIVATE)
CALLER = Caller(OWNER, True, Credential(Kind.TOKEN, "t1", None))


def assertion_in(head: bytes) -> str:
    lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"elizacloud-assertion")]
    assert len(lines) == 1
    return lines[0].partition(b": ")[2].decode()


def read(text: str) -> jose.Unverified:
    jose.check_signature(text, jose.public_part(PRIVATE))
    return jose.read(text)


@pytest.fixture
async def cloud(run_dir: Path) -> AsyncIterator[Cloud]:
    async with Cloud(run_dir).running() as running:
        running.hub.trust([], KEY)
        await signed_in(running)
        yield running


async def test_an_agent_is_told_who_calls(cloud: Cloud) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    began = int(datetime.now(UTC).timestamp())
    forged = "Elizacloud-Assertion: forged\r\nElizacloud_Assertion: forged\r\nConnection: elizacloud-assertion\r\n"
    assert (await cloud.ask(request(headers=forged))).status == 200
    token = read(assertion_in(agent.heads[-1]))
    assert (token.header["typ"], token.header["kid"], token.header["alg"]) == (ASSERTION_TYP, KEY_ID, "EdDSA")
    claims = dict(token.claims)
    assert began <= claims.pop("iat") == claims.pop("exp") - 60
    assert claims == {
        "iss": f"{ISSUER}/assertion",
        "aud": f"agent:{AGENT}",
        "sub": OWNER,
        "kind": "token",
        "caller": TOKENS[0].token_id,
    }


async def test_each_kind_of_caller_is_told_apart(cloud: Cloud) -> None:
    agent = RawAgent(SWITCHED)
    cloud.agent(agent)
    ticket_for(cloud)
    told = []
    for data in (
        by_host("/ws", headers=f"{UPGRADE}Authorization: Bearer {TOKEN}\r\n"),
        by_host("/ws", headers=f"{UPGRADE}Origin: http://{AGENT}.agents.test\r\n", cookie=COOKIE),
        by_host(f"/ws?elizacloud_ticket={TICKET}", headers=UPGRADE),
    ):
        assert (await cloud.ask(data)).status == 101
        told.append(read(assertion_in(agent.heads[-1])).claims)
    assert [claims["kind"] for claims in told] == ["token", "session", "ticket"]
    assert [claims["caller"] for claims in told] == [TOKENS[0].token_id, "sessionid001", TOKENS[0].token_id]


async def test_an_assertion_is_no_credential(cloud: Cloud) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    await cloud.ask(request())
    told = assertion_in(agent.heads[-1])
    for issuer in (ISSUER, f"{ISSUER}/assertion"):  # the second is a mistake that its type catches
        cloud.hub.trust([KnownIssuer(issuer, (jose.public_part(PRIVATE),))], None)
        await cloud.told()
        for data in (
            request(token=told),
            by_host(cookie=f"__Host-elizacloud={told}"),
            by_host("/ws", headers=f"{UPGRADE}Sec-WebSocket-Protocol: elizacloud, elizacloud.bearer.{told}\r\n"),
        ):
            answer = await cloud.ask(data)
            assert (answer.status, answer.header("Elizacloud-Error")) == (401, "invalid_token")
    assert len(agent.heads) == 1


async def test_without_a_key_requests_go_on_and_a_forged_one_does_not(run_dir: Path) -> None:
    async with Cloud(run_dir).running() as cloud:
        agent = RawAgent()
        cloud.agent(agent)
        assert (await cloud.ask(request(headers="Elizacloud-Assertion: forged\r\n"))).status == 200
        assert b"ssertion" not in agent.heads[-1]


def test_one_signature_serves_until_a_third_of_its_life_is_left() -> None:
    now = [1000.5]
    assertions = Assertions(UpstreamTable(assertion_key=KEY), lambda: now[0])
    first = assertions.line(AGENT, CALLER)
    now[0] = 1039.9
    assert assertions.line(AGENT, CALLER) is first
    now[0] = 1040.0
    second = assertions.line(AGENT, CALLER)
    assert read(assertion_in(second)).claims["exp"] == 1100
    now[0] = 900.0  # the clock was set back
    assert read(assertion_in(assertions.line(AGENT, CALLER))).claims["exp"] == 960


def test_nobody_gets_another_ones() -> None:
    assertions = Assertions(UpstreamTable(assertion_key=KEY), lambda: 0.0)
    callers = [
        (AGENT, CALLER),
        (OTHER_AGENT, CALLER),
        (AGENT, CALLER._replace(owner_id="other")),
        (AGENT, CALLER._replace(credential=Credential(Kind.TOKEN, "t2", None))),
        (AGENT, CALLER._replace(credential=Credential(Kind.SESSION, "t1", None))),
    ]
    lines = [assertions.line(agent_id, caller) for agent_id, caller in callers]
    assert len(set(lines)) == len(callers)
    assert [assertions.line(agent_id, caller) for agent_id, caller in callers] == lines


def test_a_new_key_is_used_at_once() -> None:
    table = UpstreamTable()
    assertions = Assertions(table, lambda: 0.0)
    assert assertions.line(AGENT, CALLER) == b""
    table.assertion_key = KEY
    assert read(assertion_in(assertions.line(AGENT, CALLER))).header["kid"] == KEY_ID
    key_id, private = jose.new_private_key()
    table.assertion_key = AssertionKey("i", key_id, private)
    text = assertion_in(assertions.line(AGENT, CALLER))
    assert jose.read(text).header["kid"] == key_id
