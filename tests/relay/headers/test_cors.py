"""CORS at the edge: listed origins only, for agents, the API and the relay's own answers, and preflights stay here."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from elizacloud.errors import Misconfigured
from elizacloud.settings import load_settings
from tests.relay.conftest import AGENT, TOKEN, Answer, Cloud, RawAgent, asleep, request, soon

PAGE = "https://app.test"
OTHER = "https://evil.test"


@pytest.fixture
async def cloud(run_dir: Path) -> AsyncIterator[Cloud]:
    async with Cloud(run_dir).running(cors_origins=(PAGE, "http://localhost:3000")) as running:
        yield running


def all_of(answer: Answer, name: str) -> set[str]:
    return {value for key, value in answer.headers if key.lower() == name.lower()}


def preflight(
    path: str = f"/api/relay/{AGENT}/api/agents", origin: str = PAGE, method: str = "POST", host: str = "relay.test"
) -> bytes:
    return (
        f"OPTIONS {path} HTTP/1.1\r\nHost: {host}\r\nOrigin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n"
        "Access-Control-Request-Headers: authorization, content-type\r\n\r\n"
    ).encode()


async def test_an_agents_answer_may_be_read_by_a_listed_origin(cloud: Cloud) -> None:
    cloud.agent(
        RawAgent(
            b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nAccess-Control-Allow-Credentials: true\r\n"
            b"Vary: Accept\r\nContent-Length: 2\r\n\r\nok"
        )
    )
    answer = await cloud.ask(request(headers=f"Origin: {PAGE}\r\n"))
    assert answer.header("Access-Control-Allow-Origin") == PAGE
    assert answer.header("Access-Control-Allow-Credentials") is None
    assert all_of(answer, "Vary") == {"Accept", "Origin"}
    exposed = (answer.header("Access-Control-Expose-Headers") or "").split(", ")
    assert {"Retry-After", "Location", "RateLimit", "X-Request-Id", "Elizacloud-Error"} <= set(exposed)


@pytest.mark.parametrize(
    "origin",
    [OTHER, "null", "*", "https://app.test.evil.test", "https://app.test:8443", "http://app.test", "HTTPS://APP.TEST"],
)
async def test_an_origin_that_is_not_listed_is_never_reflected(cloud: Cloud, origin: str) -> None:
    agent = RawAgent(b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\nok")
    cloud.agent(agent)
    answer = await cloud.ask(request(headers=f"Origin: {origin}\r\n"))
    assert (answer.status, answer.header("Vary")) == (200, "Origin")
    assert b"Access-Control" not in answer.head


async def test_two_origins_are_none(cloud: Cloud) -> None:
    cloud.agent(RawAgent())
    answer = await cloud.ask(request(headers=f"Origin: {OTHER}\r\nOrigin: {PAGE}\r\n"))
    assert b"Access-Control" not in answer.head


async def test_the_apis_answers_are_treated_alike(cloud: Cloud) -> None:
    cloud.api.answer = b"HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 3\r\n\r\napi"
    ask = "GET /api/v1/agents HTTP/1.1\r\nHost: relay.test\r\nOrigin: {}\r\n\r\n"
    answer = await cloud.ask(ask.format(PAGE).encode())
    assert (answer.body, answer.header("Access-Control-Allow-Origin")) == (b"api", PAGE)
    answer = await cloud.ask(ask.format(OTHER).encode())
    assert (answer.body, answer.header("Access-Control-Allow-Origin")) == (b"api", None)


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(token="ec_no_no", headers=f"Origin: {PAGE}\r\n"), 401),
        (request(agent="kagent0000000404", headers=f"Origin: {PAGE}\r\n"), 404),
        (request(headers=f"Origin: {PAGE}\r\n"), 503),
        (request(method="TRACE", headers=f"Origin: {PAGE}\r\n"), 405),
        (request(method="POST", headers=f"Origin: {PAGE}\r\nTransfer-Encoding: chunked\r\n", body=b"zz\r\n"), 400),
    ],
)
async def test_the_relays_own_answers_can_be_read_too(cloud: Cloud, sent: bytes, status: int) -> None:
    if status == 503:
        cloud.peers()
        cloud.hub.describe([asleep(state="stopped")])
        await cloud.told()
    else:
        cloud.agent(RawAgent())
    answer = await cloud.ask(sent)
    assert (answer.status, answer.header("Access-Control-Allow-Origin")) == (status, PAGE)
    assert answer.header("Vary") == "Origin"


async def test_an_upgrade_carries_them_as_well(cloud: Cloud) -> None:
    cloud.agent(RawAgent(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"))
    client = await cloud.client()
    client.send(request(headers=f"Origin: {PAGE}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"))
    assert (await soon(client.answer())).header("Access-Control-Allow-Origin") == PAGE


@pytest.mark.parametrize(
    ("path", "host"),
    [
        (f"/api/relay/{AGENT}/x", "relay.test"),
        ("/api/relay/kagent0000000404/x", "relay.test"),
        ("/x", f"{AGENT}.agents.test"),
        ("/api/v1/agents", "relay.test"),
    ],
)
async def test_a_preflight_touches_nobody(cloud: Cloud, path: str, host: str) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    client = await cloud.client()
    answer = await client.ask(preflight(path, method="BREW", host=host))
    assert (answer.status, answer.header("Content-Length")) == (204, None)
    assert answer.header("Access-Control-Allow-Origin") == PAGE
    assert answer.header("Access-Control-Allow-Methods") == "BREW"
    assert answer.header("Access-Control-Allow-Headers") == "authorization, content-type"
    assert answer.header("Access-Control-Max-Age") == "600"
    # Its cookie counts on an agent's own host, and nowhere else.
    assert answer.header("Access-Control-Allow-Credentials") == ("true" if host.startswith(AGENT) else None)
    assert all_of(answer, "Vary") == {"Origin", "Access-Control-Request-Method, Access-Control-Request-Headers"}
    assert (cloud.tailscaled.dials, agent.heads, cloud.api.heads) == ([], [], [])
    assert (await client.ask(preflight())).status == 204  # the connection is good for more


async def test_a_preflight_wakes_nobody(cloud: Cloud) -> None:
    cloud.hub.describe([asleep(wakeable=True)])
    await cloud.told()
    assert (await cloud.ask(preflight())).status == 204
    assert cloud.heard.wakes == []


async def test_a_preflight_of_another_origin_is_refused_here(cloud: Cloud) -> None:
    answer = await cloud.ask(preflight(origin=OTHER))
    assert (answer.status, answer.header("Elizacloud-Error")) == (403, "origin_not_allowed")
    assert b"Access-Control" not in answer.head
    assert cloud.tailscaled.dials == []


async def test_other_options_requests_are_the_agents(cloud: Cloud) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    assert (await cloud.ask(request(method="OPTIONS", headers=f"Origin: {PAGE}\r\n"))).body == b"ok"
    assert len(agent.heads) == 1


async def test_without_listed_origins_nobody_may_read(run_dir: Path) -> None:
    async with Cloud(run_dir).running() as cloud:
        cloud.agent(RawAgent())
        answer = await cloud.ask(request(headers=f"Origin: {PAGE}\r\n"))
        assert (answer.status, answer.header("Vary")) == (200, None)
        assert b"Access-Control" not in answer.head
        assert (await cloud.ask(preflight())).status == 403


@pytest.mark.parametrize(
    ("given", "origins"),
    [
        ("https://App.test/", ("https://app.test",)),
        ("https://app.test:443, http://localhost:3000", ("https://app.test", "http://localhost:3000")),
        ("http://[::1]:80", ("http://[::1]",)),
    ],
)
def test_origins_are_read_as_browsers_write_them(given: str, origins: tuple[str, ...]) -> None:
    assert load_settings({"cors_origins": given}).settings.cors_origins == origins


@pytest.mark.parametrize(
    "given",
    ["*", "null", "https://*.app.test", "app.test", "https://app.test/x", "https://u@app.test", "https://a.test:x"],
)
def test_what_is_no_origin_is_refused(given: str) -> None:
    with pytest.raises(Misconfigured, match="is not an origin"):
        load_settings({"cors_origins": given})


async def test_a_token_does_not_make_an_origin_listed(cloud: Cloud) -> None:
    answer = await cloud.ask(
        preflight(origin=OTHER).replace(b"\r\n\r\n", f"\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode())
    )
    assert answer.status == 403
