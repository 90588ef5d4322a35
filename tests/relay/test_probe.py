import asyncio
import contextlib
import errno
import os

import pytest

from elizacloud.upstreams import Probe
from tests.relay.conftest import AGENT, IP, Cloud, RawAgent, refuse, soon, upstream

TAGS = ("tag:agent", f"tag:a-{AGENT}")


def health(status: int, body: bytes) -> RawAgent:
    return RawAgent(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body))


@pytest.mark.parametrize(
    ("status", "body", "probe"),
    [
        (200, b'{"ready":true}', Probe(200, True)),
        (200, b'{"ready":false}', Probe(200, False)),
        (200, b'{"ready":"yes"}', Probe(200, None)),
        (200, b"[1]", Probe(200, None)),
        (200, b"\xff", Probe(200, None)),
        (401, b"", Probe(401, None)),
        (500, b"oops", Probe(500, None)),
        (200, b"x" * 200_000, Probe(200, None)),
    ],
)
async def test_the_agents_answer_is_told(cloud: Cloud, status: int, body: bytes, probe: Probe) -> None:
    agent = health(status, body)
    cloud.agent(agent)
    assert await cloud.worker.probe(upstream(health_path="/api/health"), within_seconds=20) == probe
    assert agent.lines[0] == b"GET /api/health HTTP/1.1"
    assert b"Authorization: Bearer eca_agentsowntoken" in agent.lines
    assert b"Host: 100.64.0.7:2138" in agent.lines


@pytest.mark.parametrize(
    ("path", "sent"),
    [
        ("/health?deep=1&x=%20", b"/health?deep=1&x=%20"),
        ("/x HTTP/1.1\r\nX: y\r\n\r\nGET /", b"/x%20HTTP/1.1%0D%0AX:%20y%0D%0A%0D%0AGET%20/"),
        ("/gr\N{LATIN SMALL LETTER U WITH DIAERESIS}n", b"/gr%C3%BCn"),
    ],
)
async def test_a_health_path_cannot_leave_the_request_line(cloud: Cloud, path: str, sent: bytes) -> None:
    agent = health(200, b"{}")
    cloud.agent(agent)
    assert (await cloud.worker.probe(upstream(health_path=path), within_seconds=20)).status == 200
    assert agent.lines[0] == b"GET " + sent + b" HTTP/1.1"
    assert len(agent.heads) == 1


async def test_each_probe_dials(cloud: Cloud) -> None:
    cloud.agent(health(200, b"{}"))
    for _ in range(2):
        await cloud.worker.probe(upstream(), within_seconds=20)
    assert len(cloud.tailscaled.dials) == 2


async def test_a_probe_waits_for_the_node_to_appear(cloud: Cloud) -> None:
    cloud.agent(health(200, b"{}"))
    cloud.peers()
    asked = asyncio.create_task(cloud.worker.probe(upstream(), within_seconds=20))
    await asyncio.sleep(0)
    assert cloud.tailscaled.dials == []
    cloud.agent_joined()
    assert (await soon(asked)).live


async def test_another_tenant_at_the_address_is_not_asked(cloud: Cloud) -> None:
    agent = health(200, b"{}")
    cloud.agent(agent)
    cloud.peers(("8", IP, TAGS))
    probe = await cloud.worker.probe(upstream(), within_seconds=0.05)
    assert (probe.status, probe.error) == (None, "no answer in 0.05 s")
    assert agent.connections == 0


async def test_what_is_wrong_is_said(cloud: Cloud) -> None:
    cloud.agent(refuse)
    assert "nothing listens" in (await cloud.worker.probe(upstream(), within_seconds=20)).error

    async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    cloud.agent(closes)
    assert "closed" in (await cloud.worker.probe(upstream(), within_seconds=20)).error


async def test_an_agent_that_hangs_is_left(cloud: Cloud) -> None:
    left = asyncio.Event()

    async def hangs(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            await reader.read()
        left.set()

    cloud.agent(hangs)
    assert (await cloud.worker.probe(upstream(), within_seconds=0.05)).status is None
    await soon(left.wait())


async def test_the_control_plane_asks_over_the_link(cloud: Cloud) -> None:
    cloud.agent(health(200, b'{"ready":true}'))
    assert await cloud.hub.probe(upstream(), within_seconds=20) == Probe(200, True)


async def test_what_the_system_refuses_is_said_too(cloud: Cloud) -> None:
    async def no_file(ip: str) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    cloud.worker._find_path = no_file
    probe = await cloud.hub.probe(upstream(), within_seconds=20)
    assert (probe.status, probe.error) == (None, "cannot ask the agent: Too many open files")
