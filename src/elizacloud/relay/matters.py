"""What passes on an open stream because somebody uses the agent, and what only keeps the stream open. Pure.

A WebSocket is looked at as it is read: pieces that are nothing but whole small frames can be judged, and all else matters.
Compressed messages (RFC 7692) cannot be looked into, so they matter, too.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_FIN, _MASKED = 0x80, 0x80
_LARGEST = 1024
"""Of a text that may be a program's own ping or the state that the Milady agent tells every five seconds."""
_KEEPS_OPEN = re.compile(rb'\s*\{\s*"type"\s*:\s*"(?:ping|pong|status|heartbeat|keepalive)"')
_OWN_PING = re.compile(rb'\s*\{\s*"type"\s*:\s*"ping"')


class _Frame(NamedTuple):
    opcode: int
    payload: bytes
    end: int


def message_matters(data: bytes) -> bool:
    """Whether a piece of a WebSocket, from either side, is more than pings, pongs, a close and the like."""
    at = 0
    while at < len(data):
        frame = _frame(data, at)
        if frame is None or not _keeps_open(frame):
            return True
        at = frame.end
    return False


def event_matters(data: bytes) -> bool:
    """Whether a piece of an event stream is more than comments, which are sent to keep it open (HTML standard, 9.2.7)."""
    if data[:1] not in (b":", b"\n", b"\r"):
        return True
    return any(line not in (b"", b"\r") and not line.startswith(b":") for line in data.split(b"\n"))


def answers_for(data: bytes) -> bytes:
    """What an agent would answer to a piece of a client's that does not matter: pongs, and the end of a closing handshake."""
    answers, at = b"", 0
    while (frame := _frame(data, at)) is not None:
        if frame.opcode == _PING:
            answers += _unmasked(_PONG, frame.payload)
        elif frame.opcode == _CLOSE:
            answers += _unmasked(_CLOSE, frame.payload)
        elif frame.opcode == _TEXT and _OWN_PING.match(frame.payload):
            answers += _unmasked(_TEXT, b'{"type":"pong"}')
        at = frame.end
    return answers


def _keeps_open(frame: _Frame) -> bool:
    if frame.opcode == _TEXT:
        return _KEEPS_OPEN.match(frame.payload) is not None
    return frame.opcode in (_PING, _PONG, _CLOSE)


def _frame(data: bytes, at: int) -> _Frame | None:
    """The frame that begins there (RFC 6455 section 5.2), if it is whole, small, and a message by itself."""
    if len(data) < at + 2:
        return None
    first, second = data[at], data[at + 1]
    size, at = second & 0x7F, at + 2
    if size == 126:
        size, at = int.from_bytes(data[at : at + 2]), at + 2
    mask = b""
    if second & _MASKED:
        mask, at = data[at : at + 4], at + 4
    if first & 0xF0 != _FIN or size > _LARGEST or len(data) < at + size:
        return None
    payload = data[at : at + size]
    if mask and size:
        whole = (mask * (size // 4 + 1))[:size]
        payload = (int.from_bytes(payload) ^ int.from_bytes(whole)).to_bytes(size)
    return _Frame(first & 0x0F, payload, at + size)


def _unmasked(opcode: int, payload: bytes) -> bytes:
    return bytes((_FIN | opcode, len(payload))) + payload
