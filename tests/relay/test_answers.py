import json

import pytest

from elizacloud.errors import NotFound, TooMany
from elizacloud.relay.answers import Answer, answer_to, answer_to_bad
from elizacloud.relay.http1.head import BadMessage, read_answer_head, value_of


def test_an_answer_is_a_problem_that_says_whose_it_is() -> None:
    raw = Answer(503, "agent_starting", "it is starting", 1.2).encode(head_only=False, close=False)
    head_end = raw.index(b"\r\n\r\n") + 4
    head, body = read_answer_head(raw[:head_end]), raw[head_end:]
    assert (head.status, head.reason) == (503, b"Service Unavailable")
    assert value_of(head.fields, b"elizacloud-error") == b"agent_starting"
    assert value_of(head.fields, b"retry-after") == b"2"
    assert value_of(head.fields, b"content-length") == b"%d" % len(body)
    assert value_of(head.fields, b"connection") is None
    assert json.loads(body) == {
        "type": "about:blank",
        "title": "Service Unavailable",
        "status": 503,
        "code": "agent_starting",
        "detail": "it is starting",
    }


def test_for_head_there_is_no_body() -> None:
    assert Answer(404, "x", "y").encode(head_only=True, close=True).endswith(b"Connection: close\r\n\r\n")


def test_text_from_outside_stays_in_the_body() -> None:
    raw = Answer(400, "x", 'a"\r\nSet-Cookie: b').encode(head_only=False, close=False)
    assert b"\r\nSet-Cookie" not in raw


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (answer_to(NotFound("no agent", code="agent_not_found")), Answer(404, "agent_not_found", "no agent")),
        (answer_to(TooMany("slow down", retry_after_seconds=3)), Answer(429, "too_many", "slow down", 3)),
        (
            answer_to_bad(BadMessage("odd", status=431, code="headers_too_large")),
            Answer(431, "headers_too_large", "cannot read the request: odd; correct the client"),
        ),
    ],
)
def test_errors_become_answers(answer: Answer, expected: Answer) -> None:
    assert answer == expected
