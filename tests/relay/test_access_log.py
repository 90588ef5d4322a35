import asyncio
import json
import os
import select
from pathlib import Path

import pytest

from elizacloud.relay.access_log import AccessLog, logged_path, write_lines
from elizacloud.relay.edge import Edge
from elizacloud.relay.headers.cors import Cors
from elizacloud.relay.headers.forwarded import Proxies
from elizacloud.relay.http1.head import RequestHead
from tests.relay.conftest import (
    AGENT,
    AGENT_TOKEN,
    BOUND_TOKEN,
    IP,
    OWNER,
    TOKEN,
    Cloud,
    RawAgent,
    request,
    soon,
    upstream,
)


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/a/b?token=ec_x_y#z", "/a/b"),
        ("/a#b", "/a"),
        ("http://user:pass@host/a?b", "/a"),
        ("/x/ec_tokenid00001_secret/y", "/x/***/y"),
        ("/x/eca_secret", "/x/***"),
        ("/x/%65c%5Ftokenid00001_secret", "/x/***"),
        ("/api/auth/cli-session/0123abc", "/api/auth/cli-session/***"),
        ("/api/auth/cli%2Dsession/0123abc", "/api/auth/cli-session/***"),
        ("/" + "x" * 9999, "/" + "x" * 511),
    ],
)
def test_a_path_shows_no_secret(target: str, path: str) -> None:
    assert json.loads(logged_path(target.encode().partition(b"?")[0])) == path


async def test_a_line_says_what_happened(cloud: Cloud) -> None:
    cloud.agent(RawAgent(b"HTTP/1.1 201 Made\r\nContent-Length: 5\r\n\r\nhello"))
    await cloud.ask(
        request('/a"b\\c?secret=1', method="POST", headers="Content-Length: 3\r\nCookie: c=secret\r\n", body=b"abc")
    )
    await cloud.ask(request(token="ec_no_no"))
    await cloud.ask(b"GET / HTTP/1.1\r\nHost: relay.test\r\n\r\n")
    await cloud.ask(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
    agents, refused, api, unread = await cloud.log_lines(4)
    assert agents["seconds"] > 0
    assert {name: agents[name] for name in ("client", "method", "path", "status", "outcome", "upstream")} == {
        "client": "127.0.0.1",
        "method": "POST",
        "path": f'/api/relay/{AGENT}/a"b\\c',
        "status": 201,
        "outcome": "2xx",
        "upstream": "agent",
    }
    assert (agents["agent"], agents["owner"], agents["bytes_in"], agents["bytes_out"]) == (AGENT, OWNER, 3, 5)
    assert (refused["status"], refused["outcome"], refused["upstream"], refused["owner"]) == (
        401,
        "invalid_token",
        "none",
        "",
    )
    assert (api["status"], api["upstream"], api["path"]) == (200, "api", "/")
    assert (unread["status"], unread["outcome"], unread["path"]) == (400, "bad_request", "")
    for secret in (TOKEN, AGENT_TOKEN, "secret"):
        assert secret not in "".join(cloud.logged)


async def test_a_client_that_leaves_has_one_line(cloud: Cloud) -> None:
    agent = RawAgent(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome")
    cloud.agent(agent)
    client = await cloud.client()
    client.send(request())
    await client.reader.readuntil(b"some")
    client.close()
    (line,) = await cloud.log_lines(1)
    assert (line["status"], line["outcome"], line["bytes_out"]) == (200, "aborted", 4)


async def test_a_body_that_breaks_off_has_one_line(cloud: Cloud) -> None:
    cloud.agent(RawAgent(b""))
    answer = await cloud.ask(
        request(method="POST", headers="Transfer-Encoding: chunked\r\n", body=b"2\r\nhi\r\nzz\r\n")
    )
    assert answer.status == 400
    await cloud.ask(request(token="ec_no_no"))
    broken, _ = await cloud.log_lines(2)
    assert (broken["status"], broken["outcome"], broken["agent"]) == (400, "bad_request", AGENT)


async def test_it_can_be_switched_off(run_dir: Path) -> None:
    async with Cloud(run_dir).running(access_log=0.0) as cloud:
        cloud.agent(RawAgent())
        await cloud.ask(request())
    assert cloud.logged == []


async def test_a_share_of_the_requests_can_be_logged() -> None:
    edge = Edge(Cors(()), Proxies())
    peer = edge.proxies.peer(("192.0.2.1", 1), secure=False)
    written: list[str] = []
    log = AccessLog(0.25, write=written.append)
    for _ in range(2000):
        log.add(edge.receive(RequestHead(b"GET", b"/", 1, [], b"h"), peer), 200, "2xx", "agent")
    await written_out(log)
    assert 300 < "".join(written).count("\n") < 700


async def test_when_nobody_reads_lines_are_dropped_and_counted() -> None:
    edge = Edge(Cors(()), Proxies())
    written: list[str] = []
    log = AccessLog(1, write=written.append, clock=lambda: 1.5)
    request = edge.unread(edge.proxies.peer(("192.0.2.1", 1), secure=False))
    for _ in range(20_003):
        log.add(request, 400, "bad_request", "none")
    await written_out(log)
    lines = "".join(written).splitlines()
    assert len(lines) == 20_001
    assert json.loads(lines[-1]) == {
        "timestamp": "1970-01-01T00:00:01.500Z",
        "event": "access log lines dropped",
        "count": 3,
    }


def test_a_pipe_gets_whole_lines_in_pieces_that_the_kernel_keeps_together(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    pieces: list[bytes] = []

    def write(output: int, data: bytes) -> int:
        pieces.append(bytes(data))
        return len(data)

    monkeypatch.setattr(os, "write", write)
    lines = b"".join(b"x" * (300 + number % 90) + b"\n" for number in range(200))
    write_lines(writing, lines)
    os.close(reading)
    os.close(writing)
    assert b"".join(pieces) == lines
    assert max(map(len, pieces)) <= select.PIPE_BUF
    assert all(piece.endswith(b"\n") for piece in pieces)


def test_a_file_gets_all_lines_at_once(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb", buffering=0) as file:
        write_lines(file.fileno(), b"line\n" * 5000)
    assert (tmp_path / "log").read_bytes() == b"line\n" * 5000


def test_lines_that_cannot_be_written_are_lost_and_nothing_else() -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    write_lines(full, b"line\n")
    os.close(full)
    write_lines(-1, b"line\n")


async def written_out(log: AccessLog) -> None:
    """What is left is written when the log ends."""
    task = asyncio.create_task(log.run(), name="access log")
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def test_the_owner_is_told_the_relays_own_time(cloud: Cloud) -> None:
    cloud.agent(RawAgent(b"HTTP/1.1 200 OK\r\nServer-Timing: db;dur=5\r\nContent-Length: 2\r\n\r\nok"))
    answer = await cloud.ask(request())
    values = [value for name, value in answer.headers if name == "Server-Timing"]
    assert values[0] == "db;dur=5"
    assert values[1].startswith("relay;dur=")
    assert 0 < float(values[1].removeprefix("relay;dur=")) < 10_000


async def test_others_are_not_told(cloud: Cloud) -> None:
    other = upstream(agent_id="kagent0000000002", node_id="8", ip="100.64.0.8")
    cloud.hub.publish(other)
    cloud.peers(("7", IP, ("tag:agent", f"tag:a-{AGENT}")), ("8", other.ip, ("tag:agent", f"tag:a-{other.agent_id}")))
    cloud.agent(RawAgent(), other.ip)
    await soon(cloud.told())
    answer = await cloud.ask(request(agent=other.agent_id, token=BOUND_TOKEN))
    assert (answer.status, answer.header("Server-Timing")) == (200, None)
