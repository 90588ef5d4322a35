import asyncio
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from elizacloud.errors import Invalid
from elizacloud.model import Scope, TokenKind
from elizacloud.relay.link import messages
from elizacloud.upstreams import (
    AssertionKey,
    Change,
    KnownAgent,
    KnownIssuer,
    KnownToken,
    PeerSeen,
    Probe,
    PublicKey,
    Redemption,
    Snapshot,
    Upstream,
)

UPSTREAM = Upstream("kagent0000000001", "owner", 1, 2, "cell", "7", "100.64.0.7", SecretStr("eca_secret"))
TOKEN = KnownToken(
    "t1", "ab" * 32, "owner", frozenset({Scope.OWNER, Scope.RELAY}), None, datetime(2030, 1, 1, tzinfo=UTC)
)
SESSION = KnownToken(
    "s1", "cd" * 32, "owner", frozenset({Scope.RELAY}), "kagent0000000001", None, TokenKind.SESSION, "t1"
)
ISSUER = KnownIssuer("https://cloud.example", (PublicKey("k1", '{"kty":"OKP"}'),), None, "sub", "")
ASSERTING = AssertionKey("https://cloud.example/assertion", "a1", SecretStr("private-part"))
AGENT = KnownAgent("kagent0000000002", "owner", "paused", "asleep", wakeable=True)


@pytest.mark.parametrize(
    "message",
    [
        messages.Table(Snapshot("e1", 3, (UPSTREAM,), (AGENT,), (TOKEN, SESSION), (ISSUER,), ASSERTING), 1.5),
        messages.Changed(Change(4, (UPSTREAM,), (AGENT,), (TOKEN,), ("a",), ("t",), (ISSUER,), ASSERTING)),
        messages.Changed(Change(5)),
        messages.Redeemed(3, Redemption(SESSION, SecretStr("ecs_value"))),
        messages.Redeemed(4, error="cannot", code="ticket_used"),
        messages.AskProbe(1, UPSTREAM, 2.5),
        messages.AskDrain(2, "a", 1.0),
        messages.Heartbeat(),
        messages.Alive(),
    ],
    ids=lambda message: message.kind,
)
def test_what_the_control_plane_says_arrives_as_it_was(message: messages.Down) -> None:
    line = messages.encode(message)
    assert line.count(b"\n") == 1
    assert messages.decode_down(line) == message


@pytest.mark.parametrize(
    "message",
    [
        messages.Hello("w0"),
        messages.Resync(),
        messages.ProbeDone(1, Probe(200, True)),
        messages.DrainDone(2, True),
        messages.Seen(PeerSeen("cell", "7", ("100.64.0.7",), ("tag:agent",), True)),
        messages.Wake("a"),
        messages.EndSession("ef" * 32),
        messages.AskRedeem(1, "ef" * 32, "kagent0000000001", session=True),
        messages.Used(("a", "b")),
        messages.Goodbye(),
    ],
    ids=lambda message: message.kind,
)
def test_what_a_worker_says_arrives_as_it_was(message: messages.Up) -> None:
    assert messages.decode_up(messages.encode(message)) == message


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"not json",
        b'{"kind":"table"}',
        b'{"kind":"changed","change":{"revision":"x"}}',
        b'{"kind":"hello"}',
    ],
)
def test_a_line_that_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(Invalid):
        messages.decode_down(line)


def test_a_refusal_does_not_repeat_what_it_read() -> None:
    line = messages.encode(messages.AskProbe(1, UPSTREAM, 2.5)).replace(
        b'"within_seconds":2.5', b'"within_seconds":"x"'
    )
    with pytest.raises(Invalid) as refused:
        messages.decode_down(line)
    assert "eca_secret" not in str(refused.value)
    assert refused.value.__cause__ is None


async def test_a_line_over_the_limit_is_refused() -> None:
    reader = asyncio.StreamReader(limit=64)
    reader.feed_data(b"x" * 200 + b"\n")
    with pytest.raises(Invalid, match="longer than the limit"):
        await messages.read_line(reader, within_seconds=1)


async def test_the_end_of_the_stream_is_no_line() -> None:
    reader = asyncio.StreamReader()
    reader.feed_data(b"half a line")
    reader.feed_eof()
    assert await messages.read_line(reader, within_seconds=1) is None
