"""Names of agents and hosts, spelled so that who is asked for access is not who gets the request."""

import pytest

from tests.relay.conftest import AGENT, IP, OTHER_AGENT, STRANGERS_TOKEN, TOKEN, Cloud, RawAgent, request, upstream

HOST = f"{AGENT}.agents.test"


def ask(target: str, host: str, token: str = STRANGERS_TOKEN, headers: str = "") -> bytes:
    return f"GET {target} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\n{headers}\r\n".encode("latin-1")


SPELLINGS = {
    "path": (f"/api/relay/{AGENT}/x", "relay.test"),
    "host": ("/x", HOST),
    "host with a port": ("/x", f"{HOST}:443"),
    "host with a dot": ("/x", f"{HOST}."),
    "host with a dot and a port": ("/x", f"{HOST}.:443"),
    "host in capitals": ("/x", HOST.upper()),
    "absolute target": (f"http://{HOST}/x", HOST),
    "absolute target in capitals": (f"HTTP://{HOST.upper()}/x", HOST),
    "absolute target without a path": (f"http://{HOST}?x", HOST),
    "absolute target, path front": (f"http://relay.test/api/relay/{AGENT}/x", "relay.test"),
    "path at another agent's host": (f"/api/relay/{AGENT}/x", f"{OTHER_AGENT}.agents.test"),
    "absolute target of another host": (f"http://{HOST}/x", "relay.test"),
    "absolute target with a user": (f"http://relay.test@{HOST}/x", HOST),
    "absolute target with a user that is a host": (f"http://{HOST}@relay.test/x", "relay.test"),
    "absolute target with a backslash": (f"http://relay.test\\@{HOST}/x", "relay.test"),
    "encoded id": (f"/api/relay/%6b{AGENT[1:]}/x", "relay.test"),
    "encoded slash": (f"/api/relay%2f{AGENT}/x", "relay.test"),
    "encoded prefix": (f"/api/%72elay/{AGENT}/x", "relay.test"),
    "two slashes": (f"//api/relay/{AGENT}/x", "relay.test"),
    "two slashes inside": (f"/api/relay//{AGENT}/x", "relay.test"),
    "dots": (f"/x/../api/relay/{AGENT}/x", "relay.test"),
    "dots after another": (f"/api/relay/{OTHER_AGENT}/../{AGENT}/x", "relay.test"),
    "id in capitals": (f"/api/relay/{AGENT.upper()}/x", "relay.test"),
    "id with a parameter": (f"/api/relay/{AGENT};x/x", "relay.test"),
    "id with a dot": (f"/api/relay/{AGENT}./x", "relay.test"),
    "forwarded host": ("/x", "relay.test"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_spelling_leads_a_stranger_to_an_agent(cloud: Cloud, spelling: str) -> None:
    """Coder PR #26085: one part of the name said who may, another where to."""
    target, host = SPELLINGS[spelling]
    agent = RawAgent()
    cloud.agent(agent)
    await cloud.ask(ask(target, host, headers=f"X-Forwarded-Host: {HOST}\r\nX-Original-URL: /api/relay/{AGENT}/x\r\n"))
    assert agent.heads == []
    assert cloud.tailscaled.dials == []


@pytest.mark.parametrize("spelling", list(SPELLINGS)[:10])
async def test_the_same_names_lead_the_owner_there(cloud: Cloud, spelling: str) -> None:
    """So that the test above does not pass because nobody gets through."""
    target, host = SPELLINGS[spelling]
    agent = RawAgent()
    cloud.agent(agent)
    assert (await cloud.ask(ask(target, host, TOKEN))).status == 200
    assert len(agent.heads) == 1


async def test_access_to_one_agent_is_none_to_the_next(cloud: Cloud) -> None:
    """On one connection, in one write, by both fronts."""
    mine = upstream(agent_id=OTHER_AGENT, owner_id="stranger", node_id="8", ip="100.64.0.8")
    cloud.hub.publish(mine)
    cloud.peers(("7", IP, ("tag:agent", f"tag:a-{AGENT}")), ("8", mine.ip, ("tag:agent", f"tag:a-{OTHER_AGENT}")))
    await cloud.told()
    theirs, own = RawAgent(), RawAgent()
    cloud.agent(theirs)
    cloud.agent(own, mine.ip)
    client = await cloud.client()
    own_host = f"{OTHER_AGENT}.agents.test"
    client.send(
        ask("/1", own_host)
        + ask("/2", HOST)
        + ask(f"/api/relay/{OTHER_AGENT}/3", "relay.test")
        + ask(f"/api/relay/{AGENT}/4", "relay.test")
        + ask(f"/api/relay/{OTHER_AGENT}/../{AGENT}/5", "relay.test")
        + ask(f"/api/relay/{AGENT}/6", own_host)
    )
    assert [(await client.answer()).status for _ in range(6)] == [200, 404, 200, 404, 200, 200]
    assert [head.split(b" ")[1] for head in own.heads] == [
        b"/1",
        b"/3",
        f"/../{AGENT}/5".encode(),
        f"/api/relay/{AGENT}/6".encode(),
    ]
    assert theirs.heads == []


@pytest.mark.parametrize(
    "target",
    ["100.64.0.7", "100.64.0.7:22", "127.0.0.1", "localhost", "169.254.169.254", "[::1]", "100.100.100.100", "..", "*"],
)
@pytest.mark.parametrize("port", ["", ":8080"])
async def test_no_client_names_the_host_or_port_that_is_dialled(cloud: Cloud, target: str, port: str) -> None:
    cloud.agent(RawAgent())
    for raw in (
        ask(f"/api/relay/{target}{port}/x", "relay.test", TOKEN),
        ask("/x", f"{target}{port}", TOKEN),
        ask("/x", f"{target}.agents.test", TOKEN),
        ask(f"http://{target}{port}/x", "relay.test", TOKEN),
        f"CONNECT {target}:22 HTTP/1.1\r\nHost: {target}:22\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode(),
    ):
        await cloud.ask(raw)
    assert cloud.tailscaled.dials == []
    assert (await cloud.ask(request())).status == 200
    assert cloud.tailscaled.dials == [f"{IP}:2138"]
