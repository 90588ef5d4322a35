"""What a client writes into its headers to be taken for somebody else, or to take something away that protects."""

import asyncio
import contextlib
from pathlib import Path

import pytest

from tests.relay.conftest import AGENT, AGENT_TOKEN, STRANGERS_TOKEN, TOKEN, Cloud, RawAgent, request, soon
from tests.relay.test_worker import problem

IDENTITIES = [
    "X-Forwarded-User",
    "X-Forwarded-Email",
    "X-Forwarded-Groups",
    "X-Forwarded-Access-Token",
    "X-Forwarded-Client-Cert",
    "Remote-User",
    "Remote-Groups",
    "X-Remote-User",
    "Tailscale-User-Login",
    "Tailscale-User-Name",
    "Tailscale-Headers-Info",
    "X-Authenticated-User",
    "X-Authenticated-Userid",
    "X-Auth-Request-User",
    "X-WebAuth-User",
    "X-Goog-Authenticated-User-Email",
    "X-MS-Client-Principal-Name",
    "X-Amzn-Oidc-Identity",
    "Cf-Access-Authenticated-User-Email",
    "SSL-Client-Verify",
    "Client-Cert",
    "Elizacloud-Assertion",
    "Elizacloud-User",
    "Elizacloud-Error",
]
ORIGINS = [
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
    "X-Forwarded-Server",
    "Forwarded",
    "X-Real-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X-Client-IP",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Envoy-External-Address",
]
FORGED = "forged.invalid"


def spellings(name: str) -> list[str]:
    return [name, name.lower(), name.upper(), name.replace("-", "_"), name.replace("-", "_", 1)]


@pytest.mark.parametrize("by_host", [False, True], ids=["path", "host"])
@pytest.mark.parametrize("name", IDENTITIES + ORIGINS)
async def test_no_claim_of_the_client_reaches_the_agent(cloud: Cloud, name: str, by_host: bool) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    for spelling in spellings(name):
        raw = request(headers=f"{spelling}: {FORGED}\r\n")
        if by_host:
            raw = raw.replace(f"/api/relay/{AGENT}/".encode(), b"/").replace(
                b"relay.test", f"{AGENT}.agents.test".encode()
            )
        assert (await cloud.ask(raw)).status == 200
        assert FORGED.encode() not in agent.heads[-1]


@pytest.mark.parametrize("name", [name for name in IDENTITIES + ORIGINS if name != "Elizacloud-Owner"])
async def test_no_claim_of_the_client_reaches_the_api(cloud: Cloud, name: str) -> None:
    for spelling in spellings(name):
        await cloud.ask(f"GET /x HTTP/1.1\r\nHost: cloud.test\r\n{spelling}: {FORGED}\r\n\r\n".encode())
        assert FORGED.encode() not in cloud.api.heads[-1]


NAMED = [
    "Authorization",
    "Host",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Request-Id",
    "traceparent",
    "Content-Length",
    "Transfer-Encoding",
    "Elizacloud-Assertion",
    "close, Authorization, X-Forwarded-For",
]


@pytest.mark.parametrize("named", NAMED)
async def test_connection_takes_away_nothing_that_we_set(cloud: Cloud, named: str) -> None:
    """CVE-2022-31813, CVE-2021-33193: the proxy's own headers, named hop-by-hop by the client."""
    agent = RawAgent()
    cloud.agent(agent)
    plain = "Content-Length: 2\r\n"
    await cloud.ask(request(method="POST", headers=plain, body=b"hi"))
    await cloud.ask(request(method="POST", headers=f"Connection: {named}\r\n{plain}", body=b"hi"))
    first, second = (
        sorted(line.split(b": ")[0] for line in head.split(b"\r\n") if line and not line.startswith(b"hi"))
        for head in (agent.heads[0], agent.heads[1].removeprefix(b"hi"))
    )
    assert [name for name in first if name not in second] == []
    assert b"Authorization: Bearer " + AGENT_TOKEN.encode() in agent.heads[1]
    assert b"X-Forwarded-For: 127.0.0.1" in agent.heads[1]


@pytest.mark.parametrize("named", ["Authorization", "Elizacloud-Owner", "Host"])
async def test_connection_does_not_make_a_caller_somebody_else(cloud: Cloud, named: str) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    assert (await cloud.ask(request(token=STRANGERS_TOKEN, headers=f"Connection: {named}\r\n"))).status == 404
    assert (await cloud.ask(request(headers=f"Elizacloud-Owner: x\r\nConnection: {named}\r\n"))).status == 403
    assert agent.heads == []


@pytest.mark.parametrize(
    "headers",
    [
        f"X-Api-Key: {TOKEN}\r\n",
        f"Proxy-Authorization: Bearer {TOKEN}\r\n",
        f"Cookie: token={TOKEN}\r\n",
        f"X-Eliza-Auth: {TOKEN}\r\n",
        f"Authorization : Bearer {TOKEN}\r\n",
        "",
    ],
)
@pytest.mark.parametrize("query", ["", f"?token={TOKEN}", f"?a=1&token={TOKEN}&b=2", f"?access_token=Bearer%20{TOKEN}"])
async def test_no_credential_of_ours_reaches_the_agent(cloud: Cloud, headers: str, query: str) -> None:
    """GHSA-g936 (tsdproxy): the backend was sent what opens the proxy."""
    agent = RawAgent()
    cloud.agent(agent)
    answer = await cloud.ask(request(f"/x{query}", headers=headers))
    assert answer.status in (200, 400)
    assert answer.status == 200 or b"Authorization :" in headers.encode()
    assert not any(TOKEN.encode() in head for head in agent.heads)


async def test_the_agents_own_token_never_comes_back(cloud: Cloud) -> None:
    """Neither by TRACE nor in an answer of ours about the agent."""
    cloud.agent(RawAgent(b"rubbish\r\n\r\n"))
    for raw in (request(), request(method="TRACE"), request(method="HEAD"), request(method="OPTIONS")):
        answer = await cloud.ask(raw)
        assert AGENT_TOKEN.encode() not in answer.head + answer.body


UPGRADES = ["websocket", "h2c", "ts-dial", "TLS/1.0", "websocket, h2c"]


@pytest.mark.parametrize("protocol", UPGRADES)
@pytest.mark.parametrize("by_host", [False, True], ids=["path", "host"])
async def test_no_upgrade_passes_without_a_credential(cloud: Cloud, protocol: str, by_host: bool) -> None:
    """GHSA-w3vc (jupyter-server-proxy): the WebSocket handler forgot to ask."""
    agent = RawAgent(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    cloud.agent(agent)
    upgrade = f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {protocol}\r\nHTTP2-Settings: AAMAAABk\r\n"
    path, host = ("/ws", f"{AGENT}.agents.test") if by_host else (f"/api/relay/{AGENT}/ws", "relay.test")
    for credential in ("", "Authorization: Bearer ec_no_no\r\n", f"Authorization: Bearer {STRANGERS_TOKEN}\r\n"):
        raw = f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{credential}{upgrade}\r\n"
        answer = await cloud.ask(raw.encode())
        assert answer.status in (401, 404)
        assert problem(answer.body)[1] == answer.header("Elizacloud-Error")
    assert agent.heads == []


async def test_what_is_sent_through_an_upgrade_goes_to_the_one_agent(cloud: Cloud, run_dir: Path) -> None:
    """h2c smuggling: inside the pipe no request is read, so none is authorised or led anywhere else."""
    got = bytearray()

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Go\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                got.extend(data)
                writer.write(b"seen")
        writer.close()

    cloud.agent(agent)
    client = await cloud.client()
    assert (await soon(client.ask(request(headers="Connection: Upgrade\r\nUpgrade: x\r\n")))).status == 101
    inside = (
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + request(token="ec_no_no") + b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    client.send(inside)
    assert await soon(client.reader.readexactly(4)) == b"seen"
    assert bytes(got) == inside
    assert cloud.api.heads == []
    assert sum(cloud.metrics.requests.values()) == 0  # the one is still open
