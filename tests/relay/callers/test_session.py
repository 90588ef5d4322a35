"""The relay's own addresses on an agent's host: from a ticket to a session, where it leads, and its end."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from elizacloud.auth.tokens import token_sha256
from elizacloud.model import utc_now
from elizacloud.relay.callers.session import next_on_this_host
from tests.relay.browsers import (
    COOKIE,
    HOST,
    ORIGIN,
    PAGE,
    SESSION,
    TICKET,
    by_host,
    session,
    session_ticket_for,
    signed_in,
    ticket_for,
)
from tests.relay.conftest import AGENT, TOKEN, Answer, Cloud, RawAgent, until

NAVIGATION = "Accept: text/html,application/xhtml+xml\r\nSec-Fetch-Mode: navigate\r\n"
BEGIN = f"/.elizacloud/session?elizacloud_ticket={TICKET}"


@pytest.fixture
async def cloud(run_dir: Path) -> AsyncIterator[Cloud]:
    async with Cloud(run_dir).running(cors_origins=(PAGE,), public_url="http://cloud.test") as running:
        yield running


def cookie_of(answer: Answer) -> tuple[str, dict[str, str]]:
    value, *attributes = (answer.header("Set-Cookie") or "").split("; ")
    return value, {name: value for name, _, value in (attribute.partition("=") for attribute in attributes)}


async def test_a_ticket_becomes_a_session(cloud: Cloud, agent: RawAgent) -> None:
    session_ticket_for(cloud)
    cloud.hub.add_token(session(expires_at=utc_now() + timedelta(hours=12)))
    await cloud.told()
    answer = await cloud.ask(by_host(f"{BEGIN}&next=/chat%3Fa%3D1", headers=NAVIGATION))
    assert (answer.status, answer.header("Location"), answer.body) == (303, "/chat?a=1", b"")
    assert (answer.header("Cache-Control"), answer.header("Referrer-Policy")) == ("no-store", "no-referrer")
    value, attributes = cookie_of(answer)
    assert value == COOKIE
    seconds = int(attributes.pop("Max-Age"))
    assert 12 * 3600 - 60 < seconds <= 12 * 3600
    assert attributes == {"Secure": "", "HttpOnly": "", "Path": "/", "SameSite": "None", "Partitioned": ""}
    assert cloud.heard.asked == [(token_sha256(TICKET), AGENT, True)]
    assert (await cloud.ask(by_host("/chat?a=1", cookie=value, headers=NAVIGATION))).status == 200
    assert [head.split(b"\r\n")[0] for head in agent.heads] == [b"GET /chat?a=1 HTTP/1.1"]


async def test_a_ticket_is_used_once(cloud: Cloud) -> None:
    session_ticket_for(cloud)
    assert (await cloud.ask(by_host(BEGIN))).status == 303
    answer = await cloud.ask(by_host(BEGIN))
    assert (answer.status, answer.header("Elizacloud-Error")) == (401, "ticket_used")
    assert answer.header("Set-Cookie") is None


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (by_host(BEGIN, method="POST", headers="Content-Length: 0\r\n"), 405, "method_not_allowed"),
        (by_host(BEGIN, method="HEAD"), 405, "method_not_allowed"),
        (by_host(BEGIN, headers="Sec-Fetch-Mode: cors\r\n"), 403, "cross_site_request"),
        (by_host(BEGIN, headers="Sec-Fetch-Mode: no-cors\r\n"), 403, "cross_site_request"),
        (by_host(f"{BEGIN}&elizacloud_ticket=x"), 401, "no_credential"),
        (by_host("/.elizacloud/session"), 401, "no_credential"),
        (by_host(f"/.elizacloud/session?elizacloud_ticket={TOKEN}"), 401, "invalid_ticket"),
        (by_host(f"/api/relay/{AGENT}{BEGIN}", host="relay.test"), 404, "not_found"),
        (by_host("/.elizacloud/"), 404, "not_found"),
        (by_host("/.elizacloud"), 404, "not_found"),
        (by_host(f"/.elizacloud/session/?elizacloud_ticket={TICKET}"), 404, "not_found"),
        (by_host("/%2eelizacloud/logout", method="POST", headers="Content-Length: 0\r\n"), 404, "not_found"),
    ],
)
async def test_nothing_else_begins_a_session(cloud: Cloud, data: bytes, status: int, code: str) -> None:
    session_ticket_for(cloud)
    answer = await cloud.ask(data)
    assert (answer.status, answer.header("Elizacloud-Error")) == (status, code)
    assert answer.header("Set-Cookie") is None
    assert cloud.heard.asked == []


async def test_a_ticket_that_is_only_good_for_a_request_gives_no_cookie(cloud: Cloud) -> None:
    ticket_for(cloud)
    answer = await cloud.ask(by_host(BEGIN))
    assert (answer.status, answer.header("Set-Cookie")) == (503, None)


@pytest.mark.parametrize(
    "path",
    [
        "/.elizacloud/x",
        "/.elizacloud",
        "/.elizacloud?x",
        "/%2eelizacloud/x",
        "/.%65lizacloud/x",
        "/.elizacloud%2fx",
        "//.elizacloud/x",
        "/./.elizacloud/x",
        "/a/../.elizacloud/x",
        "/a/%2e%2e/.elizacloud/x",
        "/..%5c.elizacloud/x",
        "/.elizacloud;a=b/x",
    ],
)
async def test_nothing_of_the_relays_own_reaches_the_agent(cloud: Cloud, agent: RawAgent, path: str) -> None:
    await signed_in(cloud)
    for data in (
        by_host(path, cookie=COOKIE),
        f"GET /api/relay/{AGENT}{path} HTTP/1.1\r\nHost: relay.test\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode(),
        by_host(f"http://{HOST}{path}", cookie=COOKIE),
    ):
        answer = await cloud.ask(data)
        assert (answer.status, answer.header("Elizacloud-Error")) == (404, "not_found")
    assert (agent.heads, cloud.api.heads) == ([], [])


@pytest.mark.parametrize(
    "path", ["/elizacloud/x", "/x/.elizacloud/y", "/x?/.elizacloud/", "/.elizacloudy/x", "/%2e%65lizaclou%64s/"]
)
async def test_all_else_is_the_agents(cloud: Cloud, agent: RawAgent, path: str) -> None:
    await signed_in(cloud)
    assert (await cloud.ask(by_host(path, cookie=COOKIE))).status == 200
    assert agent.lines[0] == f"GET {path} HTTP/1.1".encode()


@pytest.mark.parametrize(
    ("wanted", "location"),
    [
        ("/", "/"),
        ("/chat", "/chat"),
        ("/a/b?c=d&e=http://x//y#f", "/a/b?c=d&e=http://x//y#f"),
        ("/a%2Fb%20c", "/a%2Fb%20c"),
        ("/a b", "/a%20b"),
        ("/grüß", "/gr%C3%BC%C3%9F"),
        ("/100%", "/100%"),
        ("", "/"),
        ("chat", "/"),
        ("//evil.test", "/"),
        ("///evil.test", "/"),
        ("/\\evil.test", "/"),
        ("\\/evil.test", "/"),
        ("/\t/evil.test", "/"),
        ("/\n/evil.test", "/"),
        ("\t//evil.test", "/"),
        ("/a\r\nSet-Cookie: x=y", "/"),
        ("/\x00", "/"),
        ("/%2Fevil.test", "/"),
        ("/%252Fevil.test", "/"),
        ("/%5Cevil.test", "/"),
        ("/%0d%0aSet-Cookie:x", "/"),
        ("/%09/evil.test", "/"),
        ("/a//b", "/"),
        ("https://evil.test", "/"),
        ("javascript:alert(1)", "/"),
        ("http:/evil.test", "/"),
        ("%2F%2Fevil.test", "/"),
        ("/%" + "25" * 20 + "2Fevil.test", "/"),
        ("/" + "a" * 3000, "/"),
    ],
)
def test_the_way_onward_stays_on_this_host(wanted: str, location: str) -> None:
    target = f"/.elizacloud/session?elizacloud_ticket=x&next={quote(wanted, safe='')}".encode()
    assert next_on_this_host(target) == location


def test_without_one_way_onward_it_is_the_first_page() -> None:
    assert next_on_this_host(b"/.elizacloud/session?elizacloud_ticket=x") == "/"
    assert next_on_this_host(b"/.elizacloud/session?next=/a&next=/b") == "/"


# The way out


async def test_logging_out_clears_the_cookie(cloud: Cloud) -> None:
    await signed_in(cloud)
    data = by_host("/.elizacloud/logout", method="POST", cookie=COOKIE, headers=f"Origin: {ORIGIN}\r\n")
    answer = await cloud.ask(data.replace(b"\r\n\r\n", b"\r\nContent-Length: 0\r\n\r\n"))
    value, attributes = cookie_of(answer)
    assert (answer.status, value, attributes["Max-Age"]) == (204, "__Host-elizacloud=", "0")
    assert {"Secure", "HttpOnly", "Partitioned"} <= set(attributes)
    assert attributes["Path"] == "/"
    await until(lambda: cloud.heard.ended == [token_sha256(SESSION)])


async def test_the_control_plane_is_not_bothered_with_what_is_no_session(cloud: Cloud) -> None:
    post = by_host("/.elizacloud/logout", method="POST", cookie=COOKIE, headers="Content-Length: 0\r\n")
    assert (await cloud.ask(post)).status == 204
    await signed_in(cloud, sha256="ab" * 32)
    assert (await cloud.ask(post)).status == 204
    session_ticket_for(cloud)
    assert (await cloud.ask(by_host(BEGIN))).status == 303  # later on the same link
    assert cloud.heard.ended == []


@pytest.mark.parametrize("origin", ["https://evil.test", "null", "http://kagent0000000002.agents.test"])
async def test_another_page_logs_nobody_out(cloud: Cloud, origin: str) -> None:
    await signed_in(cloud)
    headers = f"Origin: {origin}\r\nContent-Length: 0\r\n"
    answer = await cloud.ask(by_host("/.elizacloud/logout", method="POST", cookie=COOKIE, headers=headers))
    assert (answer.status, answer.header("Set-Cookie")) == (403, None)
    assert cloud.heard.ended == []


# Who is not in yet


async def test_a_person_is_told_where_to_get_in(cloud: Cloud, agent: RawAgent) -> None:
    for cookie, code in (("", "no_credential"), ("__Host-elizacloud=ecs_gone_x", "invalid_token")):
        answer = await cloud.ask(by_host("/<script>", cookie=cookie, headers=NAVIGATION))
        assert (answer.status, answer.header("Elizacloud-Error")) == (401, code)
        assert answer.header("Content-Type") == "text/html; charset=utf-8"
        assert "default-src 'none'" in next(
            value for name, value in answer.headers if name == "Content-Security-Policy"
        )
        assert (answer.header("WWW-Authenticate") or "").startswith("Bearer")
        assert answer.header("Cache-Control") == "no-store"
        assert b'href="http://cloud.test"' in answer.body
        assert b"<script" not in answer.body
    assert agent.heads == []


async def test_on_a_laptop_the_way_in_is_above_the_agents_host(run_dir: Path) -> None:
    async with Cloud(run_dir).running() as cloud:
        answer = await cloud.ask(by_host(host=f"{HOST}:8420", headers=NAVIGATION))
        assert b'href="http://agents.test:8420/"' in answer.body


@pytest.mark.parametrize(
    "data",
    [
        by_host(),
        by_host(headers="Accept: text/html\r\nSec-Fetch-Mode: cors\r\n"),
        by_host(headers="Accept: application/json\r\nSec-Fetch-Mode: navigate\r\n"),
        f"GET /api/relay/{AGENT}/ HTTP/1.1\r\nHost: relay.test\r\n{NAVIGATION}\r\n".encode(),
    ],
)
async def test_programs_get_problem_json(cloud: Cloud, data: bytes) -> None:
    answer = await cloud.ask(data)
    assert (answer.status, answer.header("Content-Type")) == (401, "application/problem+json")
    assert answer.header("WWW-Authenticate") == 'Bearer realm="elizacloud"'


async def test_nothing_secret_is_in_the_access_log(cloud: Cloud) -> None:
    session_ticket_for(cloud)
    await cloud.ask(by_host(BEGIN, headers=f"Referer: http://x/?elizacloud_ticket={TICKET}\r\n"))
    line = (await cloud.log_lines(1))[0]
    assert (line["path"], line["status"], line["outcome"], line["upstream"]) == (
        "/.elizacloud/session",
        303,
        "session",
        "relay",
    )
    assert "ect_" not in "".join(cloud.logged)
    assert SESSION not in "".join(cloud.logged)
