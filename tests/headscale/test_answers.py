"""Each foreign answer as one of our errors. The bodies are what 0.27.1, 0.29.2 and 0.30's branch were seen to send."""

from __future__ import annotations

import json

import pytest

from elizacloud.errors import HeadscaleRefused, HeadscaleUnavailable
from elizacloud.headscale.answers import KEY_REFUSED, Answer, error_of, read_answer

URL = "http://127.0.0.1:8080"


def answer(status: int, body: object = None, **headers: str) -> Answer:
    data = body.encode() if isinstance(body, str) else b"" if body is None else json.dumps(body).encode()
    return read_answer(status, headers, data)


GRPC_REFUSAL = {"code": 2, "message": "user not found", "details": []}
GRPC_LOCKED = {"code": 2, "message": "database is locked (5) (SQLITE_BUSY)", "details": []}
GRPC_FULL = {"code": 13, "message": "creating key: database or disk is full (13)", "details": []}
PROBLEM = {
    "title": "Bad Request",
    "status": 400,
    "detail": "invalid tag",
    "errors": [{"message": "tag must start with tag:"}],
}


@pytest.mark.parametrize(
    ("given", "kind", "words"),
    [
        (answer(401, "Unauthorized"), HeadscaleRefused, "ELIZACLOUD_HEADSCALE_API_KEY"),
        (answer(401, {"title": "Unauthorized", "status": 401}), HeadscaleRefused, "ELIZACLOUD_HEADSCALE_API_KEY"),
        (answer(500, GRPC_REFUSAL), HeadscaleRefused, "refuses: user not found"),
        (answer(500, GRPC_LOCKED), HeadscaleUnavailable, "database is locked"),
        (answer(500, GRPC_FULL), HeadscaleUnavailable, "disk is full"),
        (answer(500, {"code": 14, "message": "x"}), HeadscaleUnavailable, "answers 500"),
        (answer(500, "oops"), HeadscaleUnavailable, "answers 500"),
        (answer(500), HeadscaleUnavailable, "answers 500"),
        (answer(500, {"title": "x", "status": 500, "detail": "broken"}), HeadscaleUnavailable, "broken"),
        (answer(502, "<html>"), HeadscaleUnavailable, "answers 502"),
        (answer(503, {"code": 14, "message": "busy"}), HeadscaleUnavailable, "busy"),
        (answer(429, "slow down"), HeadscaleUnavailable, "answers 429"),
        (answer(400, {"code": 3, "message": "type mismatch"}), HeadscaleRefused, "refuses: type mismatch"),
        (answer(400, PROBLEM), HeadscaleRefused, "invalid tag: tag must start with tag:"),
        (answer(404, "404 page not found"), HeadscaleRefused, "ELIZACLOUD_HEADSCALE_API_URL"),
        (answer(200, "<html>welcome</html>"), HeadscaleRefused, "may not be Headscale"),
        (answer(302, "", Location="https://other/"), HeadscaleRefused, "redirects to https://other/"),
        (answer(403, {"message": "no"}), HeadscaleRefused, "refuses: no"),
        (
            answer(500, {"code": 2, "message": "update is disabled for modes other than 'database'"}),
            HeadscaleRefused,
            "policy.mode",
        ),
    ],
)
def test_each_answer_has_its_error(given: Answer, kind: type[Exception], words: str) -> None:
    error = error_of(given, "list the nodes", URL)
    assert type(error) is kind
    assert words in str(error)
    assert str(error).startswith(f"cannot list the nodes: Headscale at {URL} ")


def test_a_refused_key_has_a_reason_of_its_own() -> None:
    assert error_of(answer(401, "Unauthorized"), "x", URL).reason == KEY_REFUSED
    assert error_of(answer(403, "Forbidden"), "x", URL).reason != KEY_REFUSED


def test_retry_after_is_passed_on() -> None:
    error = error_of(answer(503, None, **{"Retry-After": "7"}), "x", URL)
    assert error.retry_after_seconds == 7
    assert error_of(answer(503, None, **{"Retry-After": "soon"}), "x", URL).retry_after_seconds is None


def test_a_message_is_one_short_line() -> None:
    error = error_of(answer(400, {"message": "a\nb\r\n" + "x" * 10_000}), "x", URL)
    assert "\n" not in str(error)
    assert len(str(error)) < 500


@pytest.mark.parametrize(
    ("given", "absent"),
    [
        (answer(404, {"code": 5, "message": "node not found", "details": []}), True),
        (answer(404, {"title": "Not Found", "status": 404, "detail": "node not found"}), True),
        (answer(404, "404 page not found"), False),
        (answer(404, {"error": "no route"}), False),
        (answer(200, {"code": 5}), False),
        (answer(500, {"code": 5}), False),
    ],
)
def test_only_headscale_itself_can_say_that_something_is_absent(given: Answer, absent: bool) -> None:
    assert given.absent is absent


@pytest.mark.parametrize(
    "body",
    [
        {"code": 2, "message": "loading ACL from database: acl policy not found", "details": []},
        {
            "title": "Internal Server Error",
            "status": 500,
            "detail": "loading ACL from database",
            "errors": [{"message": "acl policy not found"}],
        },
    ],
)
def test_no_policy_is_told_by_its_message(body: object) -> None:
    assert answer(500, body).policy_absent
    assert not answer(500, GRPC_REFUSAL).policy_absent
