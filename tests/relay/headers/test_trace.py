import pytest

from elizacloud.relay.headers.trace import trace_of
from tests.relay.conftest import Cloud, RawAgent, request
from tests.relay.headers.test_hygiene import fields

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"


def test_a_trace_that_came_goes_on() -> None:
    trace = trace_of(fields(f"Traceparent: {PARENT}", "tracestate: a=1", "tracestate: b=2"), trusted=False)
    assert trace[1] == "0af7651916cd43dd8448eb211c80319c"
    lines = f"X-Request-Id: {trace[0]}\r\ntraceparent: {PARENT}\r\ntracestate: a=1\r\ntracestate: b=2\r\n"
    assert trace[2] == lines


def test_a_later_version_passes_as_it_is() -> None:
    later = PARENT.replace("00-", "cc-", 1) + "-what.the-future-brings"
    assert f"traceparent: {later}\r\n" in trace_of(fields(f"traceparent: {later}"), trusted=False)[2]


@pytest.mark.parametrize(
    "sent",
    [
        [],
        ["traceparent: "],
        [f"traceparent: {PARENT}-x"],
        [f"traceparent: {PARENT.upper()}"],
        [f"traceparent: ff{PARENT[2:]}"],
        ["traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-00"],
        ["traceparent: 00-0af7651916cd43dd8448eb211c80319c-0000000000000000-00"],
        [f"traceparent: {PARENT}", f"traceparent: {PARENT}"],
    ],
)
def test_else_a_new_one_begins_without_the_old_state(sent: list[str]) -> None:
    one, other = (trace_of(fields(*sent, "tracestate: a=1"), trusted=False) for _ in range(2))
    assert one[1] not in (other[1], "0af7651916cd43dd8448eb211c80319c")
    assert "traceparent: 00-" + one[1] in one[2]
    assert "tracestate" not in one[2]


@pytest.mark.parametrize(
    ("sent", "trusted", "kept"),
    [
        (["X-Request-Id: iad1::abc-1"], True, True),
        (["X-Request-Id: iad1::abc-1"], False, False),
        (["X-Request-Id: a b"], True, False),
        (['X-Request-Id: "'], True, False),
        (["X-Request-Id: " + "x" * 129], True, False),
        (["X-Request-Id: iad1::abc-1", "X-Request-Id: iad1::abc-1"], True, False),
    ],
)
def test_only_a_trusted_proxy_names_a_request(sent: list[str], trusted: bool, kept: bool) -> None:
    assert (trace_of(fields(*sent), trusted=trusted)[0] == "iad1::abc-1") is kept


async def test_agent_client_and_log_see_one_id(cloud: Cloud) -> None:
    agent = RawAgent(b"HTTP/1.1 200 OK\r\nX-Request-Id: agents\r\nContent-Length: 2\r\n\r\nok")
    cloud.agent(agent)
    answer = await cloud.ask(request(headers=f"X-Request-Id: mine\r\nTraceparent: {PARENT}\r\ntracestate: a=1\r\n"))
    given = answer.header("X-Request-Id")
    assert given not in (None, "mine", "agents")
    assert [line for line in agent.lines if line.lower().startswith((b"x-request-id", b"trace"))] == [
        f"X-Request-Id: {given}".encode(),
        f"traceparent: {PARENT}".encode(),
        b"tracestate: a=1",
    ]
    (line,) = await cloud.log_lines(1)
    assert (line["id"], line["trace"]) == (given, PARENT[3:35])


async def test_the_relays_own_answers_are_named_too(cloud: Cloud) -> None:
    ids = {
        (await cloud.ask(sent)).header("X-Request-Id")
        for sent in (request(token="ec_no_no"), b"NO\r\n\r\n", request(agent="kagent0000000404"))
    }
    assert len(ids) == 3
    assert None not in ids
    assert {line["id"] for line in await cloud.log_lines(3)} == ids
