"""What on an open stream means that somebody uses the agent."""

from __future__ import annotations

import pytest
from websockets.frames import Frame, Opcode

from elizacloud.relay.matters import answers_for, event_matters, message_matters


def frame(opcode: Opcode, data: bytes = b"", *, mask: bool = True, fin: bool = True) -> bytes:
    """As a well-known library writes it."""
    return Frame(opcode, data, fin).serialize(mask=mask)


PING, PONG = frame(Opcode.PING, b"x"), frame(Opcode.PONG, b"x")


@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize(
    "text",
    [
        b'{"type":"ping"}',
        b'{"type": "pong", "at": 17}',
        b' { "type" : "status", "state": "running" }' + b" " * 200,
        b'{"type":"heartbeat"}',
    ],
)
def test_what_programs_send_to_keep_it_open(text: bytes, mask: bool) -> None:
    assert not message_matters(frame(Opcode.TEXT, text, mask=mask))
    assert not message_matters(frame(Opcode.PING, mask=mask) + frame(Opcode.TEXT, text, mask=mask) + PONG)


@pytest.mark.parametrize(
    "data",
    [
        frame(Opcode.TEXT, b"hello"),
        frame(Opcode.TEXT, b'{"type":"chat","text":"ping"}'),
        frame(Opcode.TEXT, b'{"type":"ping"}' + b" " * 2000),
        frame(Opcode.TEXT, b'{"type":"ping"}', fin=False),
        frame(Opcode.BINARY, b'{"type":"ping"}'),
        frame(Opcode.BINARY, b""),
        frame(Opcode.CONT, b"x"),
        PING + frame(Opcode.TEXT, b"hello"),
        frame(Opcode.TEXT, b"x" * 100_000),
        PING[:3],
        b"\xc1\x02hi",
        b"anything at all",
    ],
)
def test_what_people_and_their_agents_say(data: bytes) -> None:
    assert message_matters(data)


@pytest.mark.parametrize("data", [b":\n\n", b": heartbeat\n\n", b"\n", b": a\r\n\r\n: b\n\n", b":x"])
def test_comments_keep_an_event_stream_open(data: bytes) -> None:
    assert not event_matters(data)


@pytest.mark.parametrize("data", [b"data: 1\n\n", b": heartbeat\n\ndata: 1\n\n", b"\ndata: 1", b"event: x\n"])
def test_events(data: bytes) -> None:
    assert event_matters(data)


def test_pings_are_answered_as_the_agent_would() -> None:
    assert answers_for(frame(Opcode.PING, b"are you there?")) == frame(Opcode.PONG, b"are you there?", mask=False)
    assert answers_for(PING + PONG + PING) == 2 * frame(Opcode.PONG, b"x", mask=False)
    assert answers_for(frame(Opcode.TEXT, b'{"type":"ping"}')) == frame(Opcode.TEXT, b'{"type":"pong"}', mask=False)
    assert answers_for(frame(Opcode.TEXT, b'{"type":"status"}')) == b""
    close = frame(Opcode.CLOSE, b"\x03\xe8bye")
    assert answers_for(close) == frame(Opcode.CLOSE, b"\x03\xe8bye", mask=False)
