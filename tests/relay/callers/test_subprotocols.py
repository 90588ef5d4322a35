"""The token among a WebSocket's subprotocols."""

import pytest

from elizacloud.errors import Unauthenticated
from elizacloud.relay.callers import subprotocols
from elizacloud.relay.http1.head import AnswerHead, Field, RequestHead

NAME = b"Sec-WebSocket-Protocol"


def field(value: str) -> Field:
    return NAME.lower(), NAME, value.encode()


@pytest.mark.parametrize(
    ("offered", "token"),
    [
        ("elizacloud, elizacloud.bearer.ec_a_b", "ec_a_b"),
        ("elizacloud.bearer.e.y.j,chat", "e.y.j"),
        ("chat , elizacloud", None),
        ("", None),
        (",,", None),
    ],
)
def test_the_token_is_found(offered: str, token: str | None) -> None:
    assert subprotocols.token_of(offered.encode()) == token


def test_two_tokens_are_refused() -> None:
    with pytest.raises(Unauthenticated) as caught:
        subprotocols.token_of(b"elizacloud.bearer.a, elizacloud.bearer.a")
    assert caught.value.reason == "two_credentials"


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (["elizacloud, elizacloud.bearer.x, chat"], ["chat"]),
        (["elizacloud", "chat", "Elizacloud.Bearer.x, mqtt"], ["chat", "mqtt"]),
        (["elizacloud, elizacloud.bearer.x"], []),
        (["chat"], ["chat"]),
    ],
)
def test_ours_stay_here(lines: list[str], left: list[str]) -> None:
    other: Field = (b"a", b"A", b"elizacloud")
    head = RequestHead(b"GET", b"/", 1, [other, *map(field, lines)], b"h")
    head.kept["worked out from"] = "the head as it was"
    cleaned = subprotocols.without_ours(head)
    assert cleaned.fields == [other, *map(field, left)]
    assert cleaned.kept == {}


def test_ours_is_selected_when_the_agent_selects_none() -> None:
    assert subprotocols.selection(AnswerHead(101, b"", 1, [])) == b"Sec-WebSocket-Protocol: elizacloud\r\n"
    assert subprotocols.selection(AnswerHead(101, b"", 1, [field("chat")])) == b""
