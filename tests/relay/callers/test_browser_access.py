"""The front for browsers, attacked: which credentials count there, from which pages, and what of them an agent sees."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from elizacloud.model import TokenKind
from tests.relay.browsers import (
    COOKIE,
    HOST,
    ORIGIN,
    PAGE,
    PARENT,
    SESSION,
    SWITCHED,
    TICKET,
    UPGRADE,
    by_host,
    session_ticket_for,
    signed_in,
    ticket_for,
)
from tests.relay.conftest import (
    AGENT,
    AGENT_TOKEN,
    OTHER_AGENT,
    TOKEN,
    Cloud,
    RawAgent,
    request,
    soon,
    upstream,
)

BEARER = f"Authorization: Bearer {TOKEN}\r\n"
SIBLING = f"http://{OTHER_AGENT}.agents.test"


@pytest.fixture
async def cloud(run_dir: Path) -> AsyncIterator[Cloud]:
    async with Cloud(run_dir).running(cors_origins=(PAGE,)) as running:
        await signed_in(running)
        yield running


async def code_of(cloud: Cloud, data: bytes) -> tuple[int, str | None]:
    answer = await cloud.ask(data)
    return answer.status, answer.header("Elizacloud-Error")


# Which credential counts where


async def test_a_cookie_lets_a_browser_in_at_the_agents_host(cloud: Cloud, agent: RawAgent) -> None:
    answer = await cloud.ask(by_host("/x", cookie=f"theme=dark; {COOKIE}; other=1"))
    assert (answer.status, answer.body) == (200, b"ok")
    assert b"Cookie: theme=dark; other=1" in agent.lines
    assert f"Authorization: Bearer {AGENT_TOKEN}".encode() in agent.lines
    assert SESSION.encode() not in agent.heads[-1]


async def test_a_cookie_is_nothing_at_the_path_front(cloud: Cloud, agent: RawAgent) -> None:
    data = f"GET /api/relay/{AGENT}/x HTTP/1.1\r\nHost: relay.test\r\nCookie: {COOKIE}\r\n\r\n".encode()
    assert await code_of(cloud, data) == (401, "no_credential")
    assert (await cloud.ask(request(headers=f"Cookie: {COOKIE}; a=1\r\n"))).status == 200
    assert b"ookie" not in agent.heads[-1]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ("", "no_credential"),
        (f"Authorization: Bearer {SESSION}\r\n", "misplaced_credential"),
        (f"Authorization: Bearer {TICKET}\r\n", "misplaced_credential"),
        (f"Cookie: __Host-elizacloud={TOKEN}\r\n", "misplaced_credential"),
        (f"Cookie: elizacloud={SESSION}\r\n", "no_credential"),
        (f"Cookie: __host-elizacloud={SESSION}\r\n", "no_credential"),
        ("Cookie: __Host-elizacloud=ecs_unknown_x\r\n", "invalid_token"),
        ("Cookie: __Host-elizacloud=\r\n", "invalid_token"),
        ("Authorization: Bearer ec_unknown_x\r\n", "invalid_token"),
        ("Authorization: Basic eDp5\r\n", "malformed_credential"),
        (f"{BEARER}{BEARER}", "malformed_credential"),
        (f"X-Api-Key: {TOKEN}\r\n", "no_credential"),
        (f"Proxy-Authorization: Bearer {TOKEN}\r\n", "no_credential"),
    ],
)
async def test_a_credential_counts_in_its_own_place_only(
    cloud: Cloud, agent: RawAgent, headers: str, code: str
) -> None:
    answer = await cloud.ask(by_host(headers=headers))
    assert (answer.status, answer.header("Elizacloud-Error")) == (401, code)
    assert (answer.header("WWW-Authenticate") or "").startswith('Bearer realm="elizacloud"')
    assert agent.heads == []


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/", f"Cookie: {COOKIE}; {COOKIE}\r\n"),
        ("/", f"Cookie: {COOKIE}\r\nCookie: __Host-elizacloud=ecs_tossed_x\r\n"),
        (f"/ws?elizacloud_ticket={TICKET}", f"{BEARER}{UPGRADE}"),
        (f"/ws?elizacloud_ticket={TICKET}&elizacloud_ticket={TICKET}", UPGRADE),
        (f"/ws?elizacloud_ticket={TICKET}", f"{UPGRADE}Sec-WebSocket-Protocol: elizacloud.bearer.{TOKEN}\r\n"),
        ("/ws", f"{BEARER}{UPGRADE}Sec-WebSocket-Protocol: elizacloud.bearer.{TOKEN}\r\n"),
        ("/ws", f"{UPGRADE}Sec-WebSocket-Protocol: elizacloud.bearer.{TOKEN}, elizacloud.bearer.{TOKEN}\r\n"),
    ],
)
async def test_two_credentials_are_refused(cloud: Cloud, agent: RawAgent, path: str, headers: str) -> None:
    ticket_for(cloud)
    assert await code_of(cloud, by_host(path, headers=headers)) == (401, "two_credentials")
    assert agent.heads == []
    assert cloud.heard.asked == []


async def test_a_bad_bearer_does_not_fall_back_to_the_cookie(cloud: Cloud, agent: RawAgent) -> None:
    data = by_host(cookie=COOKIE, headers="Authorization: Bearer ec_unknown_x\r\n")
    assert await code_of(cloud, data) == (401, "invalid_token")


async def test_the_bearer_wins_over_the_cookie(cloud: Cloud, agent: RawAgent) -> None:
    data = by_host(cookie=COOKIE, headers=f"{BEARER}Origin: {SIBLING}\r\n")
    assert (await cloud.ask(data)).status == 200
    assert TOKEN.encode() not in agent.heads[-1]
    assert SESSION.encode() not in agent.heads[-1]


async def test_a_session_is_for_its_own_agent(cloud: Cloud, agent: RawAgent) -> None:
    cloud.hub.publish(upstream(agent_id=OTHER_AGENT, node_id="8", ip="100.64.0.8"))
    await cloud.told()
    cloud.agent(agent, "100.64.0.8")
    data = by_host(cookie=COOKIE, host=f"{OTHER_AGENT}.agents.test")
    assert await code_of(cloud, data) == (404, "agent_not_found")
    assert await code_of(cloud, by_host(cookie=COOKIE, host="unknown.agents.test")) == (404, "agent_not_found")
    assert agent.heads == []


async def test_a_session_cannot_name_another_owner(cloud: Cloud, agent: RawAgent) -> None:
    data = by_host(cookie=COOKIE, headers="Elizacloud-Owner: stranger\r\n")
    assert await code_of(cloud, data) == (403, "owner_not_allowed")


async def test_a_session_of_a_stranger_is_no_use_even_when_bound_to_the_agent(cloud: Cloud, agent: RawAgent) -> None:
    await signed_in(cloud, owner_id="stranger")
    assert await code_of(cloud, by_host(cookie=COOKIE)) == (404, "agent_not_found")


async def test_a_session_that_turned_into_a_token_is_no_cookie(cloud: Cloud, agent: RawAgent) -> None:
    await signed_in(cloud, kind=TokenKind.API)
    assert await code_of(cloud, by_host(cookie=COOKIE)) == (401, "misplaced_credential")


async def test_a_session_that_was_used_before_is_refused_once_it_ended(cloud: Cloud, agent: RawAgent) -> None:
    for _ in range(2):
        assert (await cloud.ask(by_host(cookie=COOKIE))).status == 200
    cloud.hub.revoke_token(PARENT)
    await cloud.told()
    assert await code_of(cloud, by_host(cookie=COOKIE)) == (401, "invalid_token")


# From which pages


@pytest.mark.parametrize(
    "headers",
    [
        f"Origin: {ORIGIN}\r\n",
        f"Origin: {PAGE}\r\n",
        "Sec-Fetch-Site: same-origin\r\n",
        "Sec-Fetch-Site: none\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
        "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
        "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n",
        f"Origin: {ORIGIN}\r\n{UPGRADE}",
        f"Origin: {PAGE}\r\n{UPGRADE}",
    ],
)
async def test_a_session_may_be_used_by(cloud: Cloud, agent: RawAgent, headers: str) -> None:
    answer = await cloud.ask(by_host(cookie=COOKIE, headers=headers))
    assert answer.status == 200
    assert answer.header("Content-Security-Policy") == f"frame-ancestors 'self' {PAGE}"
    allowed = "true" if PAGE in headers else None
    assert answer.header("Access-Control-Allow-Credentials") == allowed


@pytest.mark.parametrize(
    ("method", "headers", "code"),
    [
        ("GET", f"Origin: {SIBLING}\r\n", "origin_not_allowed"),
        ("GET", "Origin: null\r\n", "origin_not_allowed"),
        ("GET", "Origin: https://evil.test\r\n", "origin_not_allowed"),
        ("GET", f"Origin: https://{HOST}\r\n", "origin_not_allowed"),
        ("GET", f"Origin: {ORIGIN}:81\r\n", "origin_not_allowed"),
        ("GET", f"Origin: {ORIGIN}.evil.test\r\n", "origin_not_allowed"),
        ("GET", f"Origin: {ORIGIN}\r\nOrigin: {ORIGIN}\r\n", "origin_not_allowed"),
        ("POST", "Origin: \r\nContent-Length: 0\r\n", "origin_not_allowed"),
        ("GET", f"Origin: {SIBLING}\r\nSec-Fetch-Site: same-origin\r\n", "origin_not_allowed"),
        ("GET", f"Connection: origin\r\nOrigin: {SIBLING}\r\n", "origin_not_allowed"),
        ("GET", UPGRADE, "origin_not_allowed"),
        ("GET", f"Sec-Fetch-Site: same-origin\r\n{UPGRADE}", "origin_not_allowed"),
        ("GET", f"Origin: null\r\n{UPGRADE}", "origin_not_allowed"),
        ("GET", f"Origin: {SIBLING}\r\n{UPGRADE}", "origin_not_allowed"),
        ("GET", "Sec-Fetch-Site: same-site\r\nSec-Fetch-Mode: no-cors\r\n", "cross_site_request"),
        (
            "GET",
            "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: image\r\n",
            "cross_site_request",
        ),
        (
            "GET",
            "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: object\r\n",
            "cross_site_request",
        ),
        (
            "DELETE",
            "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n",
            "cross_site_request",
        ),
        ("GET", "Sec-Fetch-Site: Same-Origin\r\n", "cross_site_request"),
        ("GET", "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Dest: document\r\n", "cross_site_request"),
    ],
)
async def test_a_session_may_not_be_used_by(
    cloud: Cloud, agent: RawAgent, method: str, headers: str, code: str
) -> None:
    assert await code_of(cloud, by_host(method=method, cookie=COOKIE, headers=headers)) == (403, code)
    assert agent.heads == []


async def test_without_listed_origins_nobody_frames_an_agent(run_dir: Path) -> None:
    async with Cloud(run_dir).running() as cloud:
        await signed_in(cloud)
        cloud.agent(RawAgent())
        frame = "Sec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe\r\n"
        assert await code_of(cloud, by_host(cookie=COOKIE, headers=frame)) == (403, "cross_site_request")
        answer = await cloud.ask(by_host(cookie=COOKIE))
        assert answer.header("Content-Security-Policy") == "frame-ancestors 'self'"


async def test_behind_tls_of_another_proxy_the_own_origin_is_the_public_urls(run_dir: Path) -> None:
    async with Cloud(run_dir).running(public_url="https://cloud.test") as cloud:
        await signed_in(cloud)
        cloud.agent(RawAgent())
        assert (await cloud.ask(by_host(cookie=COOKIE, headers=f"Origin: https://{HOST}\r\n"))).status == 200
        assert await code_of(cloud, by_host(cookie=COOKIE, headers=f"Origin: {ORIGIN}\r\n")) == (
            403,
            "origin_not_allowed",
        )


async def test_a_bearer_needs_no_origin(cloud: Cloud, agent: RawAgent) -> None:
    data = by_host(headers=f"{BEARER}Origin: https://evil.test\r\nSec-Fetch-Site: cross-site\r\n")
    answer = await cloud.ask(data)
    assert answer.status == 200
    assert answer.header("Access-Control-Allow-Origin") is None
    assert answer.header("Content-Security-Policy") is None


# What an agent may do to the session


@pytest.mark.parametrize(
    "line",
    [
        "__Host-elizacloud=evil; Secure; Path=/",
        "__Host-elizacloud=; Max-Age=0; Secure; Path=/",
        "__HOST-Elizacloud=evil; Secure; Path=/",
        "=__Host-elizacloud=evil; Secure; Path=/",
        "elizacloud=evil",
        "theirs=1; Domain=agents.test",
        "theirs=1; domain=.agents.test; Secure",
    ],
)
async def test_no_agent_sets_our_cookie_or_one_for_other_hosts(cloud: Cloud, line: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\nSet-Cookie: {line}\r\nSet-Cookie: own=1; Path=/\r\nContent-Length: 0\r\n\r\n"
    cloud.agent(RawAgent(answer.encode()))
    answered = await cloud.ask(by_host(cookie=COOKIE))
    assert [value for name, value in answered.headers if name == "Set-Cookie"] == ["own=1; Path=/"]


# What an agent sees


@pytest.mark.parametrize(
    ("headers", "seen"),
    [
        (f"Cookie: {COOKIE}\r\n", f"Bearer {AGENT_TOKEN}"),
        (f"Cookie: {COOKIE}\r\nAuthorization: Bearer the-agents-own\r\n", "Bearer the-agents-own"),
        (f"Cookie: {COOKIE}\r\nAuthorization: Basic eDp5\r\n", "Basic eDp5"),
        (f"Cookie: {COOKIE}\r\nElizacloud-Agent-Authorization: Bearer mine\r\n", "Bearer mine"),
        (f"{BEARER}Elizacloud-Agent-Authorization: Bearer mine\r\n", "Bearer mine"),
        (BEARER, f"Bearer {AGENT_TOKEN}"),
        (f"{BEARER}Connection: authorization, cookie\r\n", f"Bearer {AGENT_TOKEN}"),
    ],
)
async def test_the_agents_authorization_is(cloud: Cloud, agent: RawAgent, headers: str, seen: str) -> None:
    assert (await cloud.ask(by_host(headers=headers))).status == 200
    assert [line for line in agent.lines if line.lower().startswith(b"authorization")] == [
        f"Authorization: {seen}".encode()
    ]


@pytest.mark.parametrize("value", [f"Bearer {TOKEN}", f"bearer  {SESSION}", f"Bearer {TICKET}"])
async def test_our_credentials_are_not_passed_on_even_when_asked_to(cloud: Cloud, agent: RawAgent, value: str) -> None:
    data = by_host(headers=f"{BEARER}Elizacloud-Agent-Authorization: {value}\r\n")
    assert await code_of(cloud, data) == (401, "misplaced_credential")
    assert agent.heads == []


async def test_claims_of_identity_do_not_reach_the_agent(cloud: Cloud, agent: RawAgent) -> None:
    claims = "".join(
        f"{name}: forged\r\n"
        for name in ("Elizacloud-Assertion", "Elizacloud_Assertion", "X-Forwarded-User", "X-Auth-Request-User")
    )
    assert (await cloud.ask(by_host(cookie=COOKIE, headers=claims))).status == 200
    assert b"forged" not in agent.heads[-1]


# WebSockets and event streams


async def test_a_websocket_by_subprotocol(cloud: Cloud, agent: RawAgent) -> None:
    agent.answer = SWITCHED
    offered = f"Sec-WebSocket-Protocol: elizacloud, elizacloud.bearer.{TOKEN}\r\n"
    for data in (
        by_host("/ws", headers=UPGRADE + offered + "Origin: https://evil.test\r\n"),
        f"GET /api/relay/{AGENT}/ws HTTP/1.1\r\nHost: relay.test\r\n{UPGRADE}{offered}\r\n".encode(),
    ):
        answer = await cloud.ask(data)
        assert (answer.status, answer.header("Sec-WebSocket-Protocol")) == (101, "elizacloud")
        assert b"elizacloud" not in agent.heads[-1].lower()


async def test_the_agents_own_choice_of_subprotocol_passes(cloud: Cloud, agent: RawAgent) -> None:
    agent.answer = SWITCHED[:-2] + b"Sec-WebSocket-Protocol: chat\r\n\r\n"
    offered = f"Sec-WebSocket-Protocol: elizacloud, chat, elizacloud.bearer.{TOKEN}\r\n"
    answer = await cloud.ask(by_host("/ws", headers=UPGRADE + offered))
    assert (answer.status, answer.header("Sec-WebSocket-Protocol")) == (101, "chat")
    assert b"Sec-WebSocket-Protocol: chat" in agent.lines


async def test_nothing_is_selected_that_was_not_offered(cloud: Cloud, agent: RawAgent) -> None:
    agent.answer = SWITCHED
    answer = await cloud.ask(by_host("/ws", headers=f"{UPGRADE}Sec-WebSocket-Protocol: elizacloud.bearer.{TOKEN}\r\n"))
    assert (answer.status, answer.header("Sec-WebSocket-Protocol")) == (101, None)


@pytest.mark.parametrize("token", ["ec_unknown_x", SESSION, ""])
async def test_an_upgrade_without_a_good_credential_reaches_nobody(cloud: Cloud, agent: RawAgent, token: str) -> None:
    for headers in (UPGRADE, f"{UPGRADE}Sec-WebSocket-Protocol: elizacloud, elizacloud.bearer.{token}\r\n"):
        assert (await cloud.ask(by_host("/ws", headers=headers))).status == 401
    assert agent.heads == []


async def test_a_ticket_opens_one_websocket(cloud: Cloud, agent: RawAgent) -> None:
    agent.answer = SWITCHED
    ticket_for(cloud)
    data = by_host(f"/ws?clientId=a&elizacloud_ticket={TICKET}&b=%2F", headers=UPGRADE)
    assert (await cloud.ask(data)).status == 101
    assert agent.lines[0] == b"GET /ws?clientId=a&b=%2F HTTP/1.1"
    assert TICKET.encode() not in agent.heads[-1]
    assert await code_of(cloud, data) == (401, "ticket_used")
    assert [session for _, _, session in cloud.heard.asked] == [False, False]
    assert len(agent.heads) == 1


async def test_a_ticket_by_subprotocol_at_both_fronts(cloud: Cloud, agent: RawAgent) -> None:
    agent.answer = SWITCHED
    offered = f"{UPGRADE}Sec-WebSocket-Protocol: elizacloud, elizacloud.bearer.{TICKET}\r\n"
    for data in (
        by_host("/ws", headers=offered),
        f"GET /api/relay/{AGENT}/ws HTTP/1.1\r\nHost: relay.test\r\n{offered}\r\n".encode(),
    ):
        ticket_for(cloud)
        answer = await cloud.ask(data)
        assert (answer.status, answer.header("Sec-WebSocket-Protocol")) == (101, "elizacloud")
        assert b"ect_" not in agent.heads[-1]


async def test_a_ticket_opens_one_event_stream(cloud: Cloud, agent: RawAgent) -> None:
    ticket_for(cloud)
    data = by_host(f"/events?elizacloud_ticket={TICKET}", headers="Accept: text/event-stream\r\n")
    assert (await cloud.ask(data)).status == 200
    assert agent.lines[0] == b"GET /events HTTP/1.1"
    assert await code_of(cloud, data) == (401, "ticket_used")


@pytest.mark.parametrize(
    "data",
    [
        by_host(f"/x?elizacloud_ticket={TICKET}"),
        by_host(f"/x?elizacloud_ticket={TICKET}", cookie=COOKIE),
        by_host(f"/x?elizacloud_ticket={TICKET}", method="POST", headers="Accept: text/event-stream\r\n"),
        request(f"/ws?elizacloud_ticket={TICKET}", headers=UPGRADE),
    ],
)
async def test_a_ticket_in_the_query_is_for_streams_at_the_agents_host(
    cloud: Cloud, agent: RawAgent, data: bytes
) -> None:
    ticket_for(cloud)
    assert await code_of(cloud, data) == (401, "misplaced_credential")
    assert (agent.heads, cloud.heard.asked) == ([], [])


async def test_a_ticket_for_another_agent_is_nothing_here(cloud: Cloud, agent: RawAgent) -> None:
    ticket_for(cloud, OTHER_AGENT)
    data = by_host(f"/ws?elizacloud_ticket={TICKET}", headers=UPGRADE)
    assert await code_of(cloud, data) == (401, "ticket_used")


async def test_a_ticket_whose_token_was_revoked_meanwhile_is_refused(cloud: Cloud, agent: RawAgent) -> None:
    ticket_for(cloud, parent_id="revoked00001")
    data = by_host(f"/ws?elizacloud_ticket={TICKET}", headers=UPGRADE)
    assert await code_of(cloud, data) == (401, "invalid_token")
    assert agent.heads == []


@pytest.mark.parametrize("ticket", ["", "ect_", "ect__x", "ec_a_b", "ect_a_b%0d%0a", "ect_" + "a" * 300])
async def test_what_is_no_ticket_is_not_asked_about(cloud: Cloud, agent: RawAgent, ticket: str) -> None:
    data = by_host(f"/ws?elizacloud_ticket={ticket}", headers=UPGRADE)
    assert (await cloud.ask(data)).status == 401
    assert cloud.heard.asked == []


async def test_a_ticket_that_is_being_redeemed_uses_none_of_the_owners_budget(run_dir: Path) -> None:
    async with Cloud(run_dir).running() as cloud:
        cloud.agent(RawAgent(SWITCHED))
        cloud.heard.answering.clear()
        client = await cloud.client()
        client.send(by_host(f"/ws?elizacloud_ticket={TICKET}", headers=UPGRADE))
        await soon(cloud.heard.any.wait())
        assert await soon(cloud.worker.drained(AGENT, within_seconds=20))
        cloud.heard.answering.set()
        assert (await soon(client.answer())).status == 401


async def test_the_stock_uis_websocket(cloud: Cloud, agent: RawAgent) -> None:
    agent.answer = SWITCHED
    data = by_host("/ws?clientId=abc&token=whatever", cookie=COOKIE, headers=f"{UPGRADE}Origin: {ORIGIN}\r\n")
    assert (await cloud.ask(data)).status == 101
    assert agent.lines[0] == f"GET /ws?clientId=abc&token={AGENT_TOKEN} HTTP/1.1".encode()


@pytest.mark.parametrize("path", ["/ws?token=", "/x?token="])
async def test_a_token_in_the_query_is_no_credential_and_reaches_nobody(
    cloud: Cloud, agent: RawAgent, path: str
) -> None:
    assert await code_of(cloud, by_host(path + TOKEN, headers=UPGRADE)) == (401, "no_credential")
    assert (await cloud.ask(by_host(path + TOKEN, cookie=COOKIE))).status == 200
    assert b"ec_" not in agent.heads[-1]


async def test_a_session_ticket_is_not_used_up_by_a_websocket_without_the_control_plane(cloud: Cloud) -> None:
    session_ticket_for(cloud)
    cloud.link.linked = False
    data = by_host(f"/ws?elizacloud_ticket={TICKET}", headers=UPGRADE)
    assert await code_of(cloud, data) == (503, "control_plane_unavailable")
    assert cloud.heard.asked == []
