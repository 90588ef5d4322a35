"""One connection to an agent or to the API: a request's bytes go out, its answer's parts come back to a taker.

The connection knows nothing of clients. It may be used again only after a whole answer with nothing behind it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable
from typing import Protocol, cast

from elizacloud.relay.deadline import Deadline
from elizacloud.relay.http1.body import Body, EndlessBody, body_reader
from elizacloud.relay.http1.framing import Framing, Kind, answer_framing, keeps_alive
from elizacloud.relay.http1.head import (
    HEAD_END,
    MAX_HEAD_BYTES,
    AnswerHead,
    BadMessage,
    Field,
    kept_with_head,
    read_answer_head,
    value_of,
)
from elizacloud.relay.outgoing import Outgoing
from elizacloud.relay.reading import BOUNDED, LONG, SHORT, BoundedReads
from elizacloud.relay.room import Room
from elizacloud.relay.turns import BULK_BYTES

_KEEP_ALIVE_HINT = re.compile(rb"timeout=([0-9]{1,5})")
_RESCUE_BYTES = 256 << 10
WRITE_AHEAD_BYTES = 256 << 10
"""What may wait to be written before its source is read no more: as much as uvloop reads at once. With less, reading
would be stopped and started again for each piece of a long body."""
_MOST_INFORMATIONAL = 64
"""Answers before the answer: each costs us and the client more than the agent that sends it."""


class Taker(Protocol):
    """Who gets the answer. Exactly one of `answer_end`, `upstream_lost` and `answer_late` is the last call, but for an
    upgraded connection, which ends with `upstream_lost`."""

    def now(self, size: int, take: Callable[[int], None]) -> int:
        """How many of so many bytes that came are to be taken now; with 0, `take` is told when it is the taker's turn."""

    def alone(self) -> bool:
        """Nobody else waits while much is taken at once."""

    def informational(self, head: AnswerHead) -> None: ...

    def answer(self, head: AnswerHead, framing: Framing, data: bytes) -> None:
        """The final head, with what has come of the body by now."""

    def answer_data(self, data: bytes) -> None: ...

    def answer_end(self, trailers: list[Field]) -> None: ...

    def upgraded(self, head: AnswerHead, data: bytes) -> None:
        """The answer is a 101: from now on `piped` gets all that comes."""

    def piped(self, data: bytes) -> None: ...

    def upstream_lost(self, reason: str) -> None: ...

    def answer_late(self) -> None:
        """No answer began in time."""

    def upstream_writable(self, writable: bool) -> None: ...

    def upstream_full(self) -> None:
        """It took nothing for as long as `expect_room` allows."""


class UpstreamConnection(BoundedReads):
    """Made by a dialer (dial.py) when the bytes of the transport are the upstream's."""

    __slots__ = (
        "_body",
        "_came",
        "_deadline",
        "_final",
        "_held",
        "_informational",
        "_method",
        "_outgoing",
        "_paused",
        "_piping",
        "_room",
        "_stopped",
        "_taker",
        "_transport",
        "_upgrade",
        "answered",
        "epoch",
        "idle_since",
        "idle_within",
        "keep_alive",
        "on_lost",
    )

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._deadline: Deadline
        self._outgoing: Outgoing
        self._room: Room
        self._taker: Taker | None = None
        self._came = b""
        """Waits for its turn."""
        self._held = b""
        self._body: Body | None = None
        self._method = b""
        self._upgrade = False
        self._final = False
        self._informational = 0
        self._piping = False
        self._paused = False
        self._stopped = False
        self.answered = False
        """Some byte of an answer to the present request has come, be it an informational one."""
        self.keep_alive = False
        """The answer allows another request."""
        self.idle_since = 0.0
        self.idle_within: float | None = None
        """How long the upstream says that it keeps an idle connection, in seconds."""
        self.epoch = 0
        self.on_lost: Callable[[UpstreamConnection], None] | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "piping" if self._piping else "busy" if self._taker else "idle"
        return f"<UpstreamConnection {state}>"

    @property
    def closed(self) -> bool:
        return self._transport.is_closing()

    @property
    def piping(self) -> bool:
        return self._piping

    def begin(self, taker: Taker, method: bytes, *, upgrade: bool) -> None:
        """A new request: the next bytes that come are its answer."""
        self._taker = taker
        self._method = method
        self._upgrade = upgrade
        self.answered = self.keep_alive = self._final = False

    def write(self, data: bytes, *, may_wait: bool = False) -> None:
        self._outgoing.write(data, may_wait=may_wait)

    def expect_answer(self, within_seconds: float) -> None:
        """Call the taker's `answer_late` unless a final answer begins in this time, or has begun."""
        if not self._final:
            self._deadline.set(within_seconds)

    def expect_room(self, within_seconds: float) -> None:
        """Until it is writable again: call the taker's `upstream_full` when it takes nothing for so long."""
        self._room.expect(within_seconds)

    @property
    def reading_paused(self) -> bool:
        return self._paused

    def pause_reading(self) -> None:
        """Until `resume_reading`: nobody takes more for now."""
        self._paused = True
        self._regulate()

    def resume_reading(self) -> None:
        self._paused = False
        self._regulate()

    def _regulate(self) -> None:
        """Read on only while somebody takes it, and while not much waits."""
        stop = self._paused or len(self._came) >= BULK_BYTES
        if stop is not self._stopped and not self._transport.is_closing():
            self._stopped = stop
            if stop:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def close(self) -> None:
        """Let go of it after what was written has left; the taker hears no more."""
        self._taker = None
        self._came = b""
        self._outgoing.flush()
        self._transport.close()

    def abort(self) -> None:
        """End it now: no byte that is still queued here is sent."""
        self._taker = None
        self._transport.abort()

    def kill(self, reason: str) -> None:
        """End it now, and tell the taker."""
        self._transport.abort()
        self._lose(reason)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are, without saying so
        self._transport.set_write_buffer_limits(high=WRITE_AHEAD_BYTES)
        loop = asyncio.get_running_loop()
        self._deadline = Deadline(loop, self._late)
        self._outgoing = Outgoing(self._transport, loop.call_soon)
        self._room = Room(self._transport, loop, self._full)

    def get_buffer(self, sizehint: int) -> memoryview:
        taker = self._taker
        if self._body is None or taker is None:
            return BOUNDED
        return LONG if taker.alone() else SHORT

    def data_received(self, data: bytes) -> None:
        taker = self._taker
        if taker is None:
            self._transport.abort()  # an answer that nobody asked for, or one that nobody waits for
        elif self._came:
            self._came += data
            self._regulate()
        elif (now := taker.now(len(data), self._take)) == len(data):
            self._received(taker, data)
        else:
            self._came = data
            self._regulate()
            self._take(now)

    def _take(self, size: int) -> None:
        """So much of what waits, and more while there are turns."""
        taker = self._taker
        while taker is not None and self._came and size:
            data, self._came = self._came[:size], self._came[size:]
            self._regulate()
            self._received(taker, data)
            if self._came and self._taker is not taker:
                self.kill("it sent more than its answer")
                return
            size = taker.now(len(self._came), self._take) if self._came else 0

    def _received(self, taker: Taker, data: bytes) -> None:
        if self._piping:
            taker.piped(data)
            return
        self.answered = True
        try:
            if self._body is not None:
                self._take_body(taker, data)
            else:
                self._take_heads(taker, data)
        except BadMessage as error:
            self._lose(str(error))
            self._transport.abort()

    def pause_writing(self) -> None:
        if self._taker is not None:
            self._taker.upstream_writable(False)

    def resume_writing(self) -> None:
        self._room.found()
        if self._taker is not None:
            self._taker.upstream_writable(True)

    def eof_received(self) -> None:
        self._outgoing.flush()

    def connection_lost(self, error: Exception | None) -> None:
        self._deadline.stop()
        self._room.stop()
        self._take(len(self._came))
        if error is not None and self._taker is not None and not self._piping:
            self._rescue()
        if self._taker is not None:
            if isinstance(self._body, EndlessBody) and error is None:
                self._complete(self._taker, b"")
            else:
                self._lose("it closed the connection")
        if self.on_lost is not None:
            self.on_lost(self)

    def _rescue(self) -> None:
        """Read what the upstream sent before it closed on our upload: an early answer must not be lost to EPIPE."""
        connection = self._transport.get_extra_info("socket")
        with contextlib.suppress(OSError):
            left = _RESCUE_BYTES
            while self._taker is not None and left > 0 and (data := os.read(connection.fileno(), 65536)):
                left -= len(data)
                self._received(self._taker, data)

    def _late(self) -> None:
        taker, self._taker = self._taker, None
        self._transport.abort()
        if taker is not None:
            taker.answer_late()

    def _full(self) -> None:
        if self._taker is not None:
            self._taker.upstream_full()
        else:
            self._transport.abort()  # nobody waits for it: it was closed, or is idle

    def _lose(self, reason: str) -> None:
        taker, self._taker = self._taker, None
        if taker is not None:
            taker.upstream_lost(reason)

    def _take_heads(self, taker: Taker, data: bytes) -> None:
        if self._held:
            data, self._held = self._held + data, b""
        while True:
            end = data.find(HEAD_END)
            if end > MAX_HEAD_BYTES or (end < 0 and len(data) > MAX_HEAD_BYTES):
                raise BadMessage("the head of the answer is too large")
            if end < 0:
                self._held = data
                return
            head = read_answer_head(data[: end + 4])
            data = data[end + 4 :]
            if head.status >= 200:
                self._final = True
                self._informational = 0
                self._deadline.clear()
                self._take_answer(taker, head, data)
                return
            if head.status == 101:
                if not self._upgrade:
                    raise BadMessage("it switched protocols without being asked")
                self._deadline.clear()
                self._piping = True
                taker.upgraded(head, data)
                return
            self._informational += 1
            if self._informational > _MOST_INFORMATIONAL:
                raise BadMessage("it sends one informational answer after another")
            taker.informational(head)
            if not data or self._taker is not taker:
                return

    def _take_answer(self, taker: Taker, head: AnswerHead, data: bytes) -> None:
        framing = answer_framing(head, self._method)
        keep_alive, idle_within = _reuse(head)
        self.keep_alive = keep_alive and framing.kind is not Kind.UNTIL_CLOSE
        if idle_within is not None:
            self.idle_within = idle_within
        if framing.kind is Kind.LENGTH and len(data) == framing.length:
            taker.answer(head, framing, data)  # nearly every small answer comes like this: whole, in one read
            if self._taker is taker:
                self._complete(taker, b"")
            return
        body = self._body = body_reader(framing)
        payload, rest = (b"", data) if body.done else body.feed(data)
        taker.answer(head, framing, payload)
        if body.done and self._taker is taker:
            self._complete(taker, rest)

    def _take_body(self, taker: Taker, data: bytes) -> None:
        body = self._body
        assert body is not None
        payload, rest = body.feed(data)
        if payload:
            taker.answer_data(payload)
        if body.done and self._taker is taker:
            self._complete(taker, rest)

    def _complete(self, taker: Taker, rest: bytes) -> None:
        trailers = self._body.trailers if self._body is not None else []
        self._body = self._taker = None
        if rest:
            self.keep_alive = False
        if self._paused:
            self.resume_reading()  # for whoever uses it next, and to see the upstream close it
        taker.answer_end(trailers)


@kept_with_head
def _reuse(head: AnswerHead) -> tuple[bool, float | None]:
    """Whether the upstream would take another request, and for how many seconds it says that it waits for it."""
    found = _KEEP_ALIVE_HINT.search(value_of(head.fields, b"keep-alive") or b"")
    return keeps_alive(head), float(found[1]) if found else None
