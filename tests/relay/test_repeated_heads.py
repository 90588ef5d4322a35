"""Heads are remembered by their bytes (http1/head.py): what the same bytes mean may still change from one to the next."""

from pathlib import Path

from elizacloud.model import agent_tag
from elizacloud.relay.http1.head import _remembered_request
from tests.relay.conftest import (
    AGENT,
    IP,
    OTHER_AGENT,
    STRANGERS_TOKEN,
    Cloud,
    RawAgent,
    request,
    soon,
    upstream,
)

OTHER_IP = "100.64.0.8"
OWNERS = request()
STRANGERS = request(agent=OTHER_AGENT, token=STRANGERS_TOKEN)
"""As long as the owner's, and the same but for the agent's id and the token."""


async def of_two_owners(cloud: Cloud) -> tuple[RawAgent, RawAgent]:
    """Agents of two owners whose answers' heads are the same bytes."""
    mine, theirs = (RawAgent(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + body) for body in (b"mine", b"thei"))
    cloud.agent(mine)
    cloud.agent(theirs, OTHER_IP)
    other = upstream(agent_id=OTHER_AGENT, owner_id="stranger", node_id="8", ip=OTHER_IP)
    cloud.hub.publish(other)
    cloud.peers(("7", IP, ("tag:agent", agent_tag(AGENT))), ("8", OTHER_IP, ("tag:agent", agent_tag(OTHER_AGENT))))
    await cloud.told()
    return mine, theirs


async def test_two_owners_requests_take_turns_and_share_nothing(cloud: Cloud) -> None:
    mine, theirs = await of_two_owners(cloud)
    owner, stranger = await cloud.client(), await cloud.client()
    ids = set()
    for _ in range(20):
        for client, raw, body in (
            (owner, OWNERS, b"mine"),
            (stranger, STRANGERS, b"thei"),
            (owner, STRANGERS, b"thei"),
        ):
            answer = await soon(client.ask(raw))
            assert (answer.status, answer.body) == (200, body)
            ids.add(answer.header("X-Request-Id"))
    assert len(ids) == 60
    assert (len(mine.heads), len(theirs.heads)) == (20, 40)
    for agent, agent_id, ip in ((mine, AGENT, IP), (theirs, OTHER_AGENT, OTHER_IP)):
        for head in agent.heads:
            assert f"\r\nHost: {ip}:2138\r\n".encode() in head
            assert f"\r\nX-Forwarded-Prefix: /api/relay/{agent_id}\r\n".encode() in head
        assert len({line for head in agent.heads for line in head.split(b"\r\n") if line.startswith(b"X-Request")}) in (
            20,
            40,
        )


async def test_what_a_head_was_granted_ends_with_its_token(cloud: Cloud) -> None:
    mine, _ = await of_two_owners(cloud)
    client = await cloud.client()
    assert (await soon(client.ask(OWNERS))).status == 200
    cloud.hub.revoke_token("tokenid00001")
    await cloud.told()
    assert (await soon(client.ask(OWNERS))).status == 401
    assert (await soon(client.ask(STRANGERS))).status == 200
    assert len(mine.heads) == 1


async def test_the_same_head_follows_its_agent(cloud: Cloud) -> None:
    _, theirs = await of_two_owners(cloud)
    client = await cloud.client()
    assert (await soon(client.ask(OWNERS))).body == b"mine"
    cloud.peers(("7", OTHER_IP, ("tag:agent", agent_tag(AGENT))))
    cloud.hub.publish(upstream(run=2, ip=OTHER_IP))
    await cloud.told()
    assert (await soon(client.ask(OWNERS))).body == b"thei"
    assert b"\r\nHost: 100.64.0.8:2138\r\n" in theirs.heads[-1]


async def test_the_same_head_from_a_trusted_proxy_means_more(run_dir: Path) -> None:
    named = request(headers="X-Forwarded-For: 192.0.2.7\r\nX-Request-Id: theirs-1\r\n")
    for trusted, client_line in (
        (("127.0.0.1/32",), b"X-Forwarded-For: 192.0.2.7, 127.0.0.1"),
        ((), b"X-Forwarded-For: 127.0.0.1"),
    ):
        async with Cloud(run_dir).running(trusted_proxies=trusted) as cloud:
            agent = RawAgent()
            cloud.agent(agent)
            answer = await cloud.ask(named)
            assert client_line in agent.lines
            assert (answer.header("X-Request-Id") == "theirs-1") is bool(trusted)


async def test_heads_do_not_pile_up(cloud: Cloud) -> None:
    cloud.agent(RawAgent())
    client = await cloud.client()
    for number in range(1200):
        client.send(request(f"/{number}"))
        assert (await soon(client.answer())).status == 200
    before = _remembered_request.cache_info()
    assert before.currsize == before.maxsize
    assert (await soon(client.ask(request("/" + "x" * 4000)))).status == 200
    assert _remembered_request.cache_info().misses == before.misses, "a long head is not remembered"
