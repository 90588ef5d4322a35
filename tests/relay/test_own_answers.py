"""Every answer of the relay's own is told apart from the agent's, names its request, and can be read by a listed page."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from elizacloud.relay.limits import LimitSettings
from elizacloud.relay.upstream import UpstreamConnection
from tests.relay.conftest import Answer, Cloud, RawAgent, refuse, request, soon
from tests.relay.test_worker import problem

ORIGIN = "https://app.test"
FROM_PAGE = f"Origin: {ORIGIN}\r\n"
UPGRADE = FROM_PAGE + "Connection: Upgrade\r\nUpgrade: websocket\r\n"


def post(headers: str, body: bytes = b"x") -> bytes:
    return request(method="POST", headers=headers, body=body)


def silent(cloud: Cloud) -> None:
    cloud.agent(RawAgent(b""))


def cut(cloud: Cloud) -> None:
    cloud.agent(RawAgent(b"rubbish\r\n\r\n"))


def nobody_there(cloud: Cloud) -> None:
    cloud.agent(refuse)


def gone(cloud: Cloud) -> None:
    cloud.peers()


def no_api(cloud: Cloud) -> None:
    (cloud.run_dir / "api").unlink()


def frozen(cloud: Cloud) -> None:
    silent(cloud)
    cloud.tailscaled.hold.clear()


def as_it_is(cloud: Cloud) -> None:
    cloud.agent(RawAgent())


CASES: dict[str, tuple[int, str, bytes, Callable[[Cloud], None]]] = {
    "no credential": (
        401,
        "no_credential",
        request(headers=FROM_PAGE).replace(b"Authorization", b"X-Nothing"),
        as_it_is,
    ),
    "upgrade, no credential": (
        401,
        "no_credential",
        request(headers=UPGRADE).replace(b"Authorization", b"X-Nothing"),
        as_it_is,
    ),
    "upgrade, another's agent": (404, "agent_not_found", request(headers=UPGRADE, agent="x"), as_it_is),
    "upgrade, agent gone": (503, "agent_unroutable", request(headers=UPGRADE), gone),
    "upgrade, agent silent": (504, "agent_timeout", request(headers=UPGRADE), silent),
    "another's agent": (404, "agent_not_found", request(headers=FROM_PAGE, agent="x"), as_it_is),
    "malformed chunk": (
        400,
        "bad_request",
        post(FROM_PAGE + "Transfer-Encoding: chunked\r\n", b"x\r\n"),
        silent,
    ),
    "method": (405, "method_not_allowed", request(method="TRACE", headers=FROM_PAGE), as_it_is),
    "slow body": (408, "request_timeout", post(FROM_PAGE + "Content-Length: 9\r\n"), silent),
    "body too large": (413, "body_too_large", post(FROM_PAGE + "Content-Length: 99\r\n"), as_it_is),
    "agent gone": (503, "agent_unroutable", request(headers=FROM_PAGE), gone),
    "agent refuses": (502, "agent_refused", request(headers=FROM_PAGE), nobody_there),
    "agent speaks no HTTP": (502, "agent_refused", request(headers=FROM_PAGE), cut),
    "agent frozen": (504, "agent_timeout", request(headers=FROM_PAGE), frozen),
    "agent silent": (504, "agent_timeout", request(headers=FROM_PAGE), silent),
    "no control plane": (
        503,
        "control_plane_unavailable",
        f"GET / HTTP/1.1\r\nHost: x\r\n{FROM_PAGE}\r\n".encode(),
        no_api,
    ),
    "preflight of another origin": (
        403,
        "origin_not_allowed",
        request(method="OPTIONS", headers="Origin: https://other.test\r\nAccess-Control-Request-Method: PUT\r\n"),
        as_it_is,
    ),
    "malformed preflight": (
        400,
        "bad_request",
        request(method="OPTIONS", headers=FROM_PAGE + "Access-Control-Request-Method: P U T\r\n"),
        as_it_is,
    ),
}
UNREADABLE: dict[str, tuple[int, bytes]] = {
    "malformed length": (400, post("Content-Length: +1\r\n")),
    "unknown coding": (501, post("Transfer-Encoding: gzip, chunked\r\n")),
    "no HTTP": (400, b"\x16\x03\x01\x02\x00"),
    "HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "target too long": (414, b"GET /" + b"x" * 80_000),
    "headers too large": (431, b"GET / HTTP/1.1\r\nA: " + b"x" * 80_000 + b"\r\n\r\n"),
    "slow headers": (408, b"GET / HTTP/1.1\r\nA: "),
}


def check(answer: Answer, status: int, code: str | None = None) -> None:
    assert answer.status == status
    assert answer.header("Elizacloud-Error") is not None
    assert problem(answer.body) == (status, answer.header("Elizacloud-Error"))
    assert code in (None, answer.header("Elizacloud-Error"))
    assert answer.header("X-Request-Id") is not None
    assert answer.header("Cache-Control") == "no-store"


@pytest.mark.parametrize("case", CASES)
async def test_an_answer_of_our_own_says_so(run_dir: Path, case: str) -> None:
    status, code, raw, prepare = CASES[case]
    deadlines = dict.fromkeys(
        ("wake_hold_seconds", "dial_timeout_seconds", "first_byte_timeout_seconds", "body_timeout_seconds"), 0.1
    )
    async with Cloud(run_dir).running(cors_origins=(ORIGIN,), max_body_bytes=50, **deadlines) as cloud:
        prepare(cloud)
        answer = await cloud.ask(raw)
        check(answer, status, code)
        if FROM_PAGE.encode() in raw:
            assert answer.header("Access-Control-Allow-Origin") == ORIGIN
            assert "Elizacloud-Error" in (answer.header("Access-Control-Expose-Headers") or "")


@pytest.mark.parametrize("case", UNREADABLE)
async def test_so_does_one_to_what_cannot_be_read(run_dir: Path, case: str) -> None:
    status, raw = UNREADABLE[case]
    async with Cloud(run_dir).running(headers_timeout_seconds=0.1) as cloud:
        check(await cloud.ask(raw), status)


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (LimitSettings(agent_in_flight=0), "too_many_requests"),
        (LimitSettings(owner_in_flight=0), "too_many_requests"),
        (LimitSettings(agent_requests_per_second=0.001), "too_many_requests"),
        (LimitSettings(owner_requests_per_second=0.001), "too_many_requests"),
        (LimitSettings(agent_streams=0), "too_many_streams"),
        (LimitSettings(owner_streams=0), "too_many_streams"),
    ],
)
async def test_a_limit_says_what_it_is_and_when_to_return(run_dir: Path, limits: LimitSettings, code: str) -> None:
    async with Cloud(run_dir).running(limits=limits) as cloud:
        cloud.agent(RawAgent())
        raw = request(headers=UPGRADE if code == "too_many_streams" else "")
        if limits.agent_requests_per_second or limits.owner_requests_per_second:
            assert (await cloud.ask(raw)).header("Elizacloud-Error") is None
        answer = await cloud.ask(raw)
        check(answer, 429, code)
        assert int(answer.header("Retry-After") or 0) >= 1
        assert (answer.header("RateLimit") or "").partition(";")[0] == (
            answer.header("RateLimit-Policy") or ""
        ).partition(";")[0]


async def test_too_many_connections_say_so(run_dir: Path) -> None:
    async with Cloud(run_dir).running(limits=LimitSettings(connections_per_address=1)) as cloud:
        await cloud.client()
        check(await soon((await cloud.client()).answer()), 429, "too_many_connections")


async def test_a_preflight_is_ours_and_no_agent_can_claim_one(run_dir: Path) -> None:
    async with Cloud(run_dir).running(cors_origins=(ORIGIN,)) as cloud:
        cloud.agent(RawAgent(b"HTTP/1.1 204 No\r\nElizacloud-Answer: preflight\r\n\r\n"))
        answer = await cloud.ask(
            request(method="OPTIONS", headers=FROM_PAGE + "Access-Control-Request-Method: PUT\r\n", token="")
        )
        assert (answer.status, answer.header("Elizacloud-Answer")) == (204, "preflight")
        assert answer.header("X-Request-Id") is not None
        assert cloud.tailscaled.dials == []
        assert (await cloud.ask(request(method="OPTIONS"))).header("Elizacloud-Answer") is None


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 421, 429, 431, 500, 502, 503, 504])
async def test_the_agents_own_errors_are_not_marked(cloud: Cloud, status: int) -> None:
    cloud.agent(RawAgent(b"HTTP/1.1 %d X\r\nElizacloud-Error: agent_timeout\r\nContent-Length: 0\r\n\r\n" % status))
    for headers in ("", UPGRADE):
        answer = await cloud.ask(request(headers=headers))
        assert (answer.status, answer.header("Elizacloud-Error")) == (status, None)


async def test_an_answer_that_is_cut_cannot_be_marked_so_its_connection_ends(cloud: Cloud) -> None:
    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nfive!")
        await writer.drain()
        writer.close()

    cloud.agent(agent)
    client = await cloud.client()
    client.send(request())
    with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
        await soon(client.answer())


async def test_a_bug_on_the_way_to_the_agent_is_answered_too(cloud: Cloud) -> None:
    async def met(ip: str, port: int) -> UpstreamConnection:
        raise RuntimeError("what nobody foresaw")

    cloud.worker._reach._dialer = met
    with capture_logs() as logged:
        answer = await cloud.ask(request())
    assert (answer.status, problem(answer.body)) == (500, (500, "internal"))
    assert b"foresaw" not in answer.body
    assert [line["event"] for line in logged] == ["a request met a bug on its way to the upstream"]
    assert cloud.metrics.in_flight == 0
