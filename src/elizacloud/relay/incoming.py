"""What a client sends, cut into heads, bodies and the bytes of an upgraded connection, as far as each is wanted now.

What the connection can be in the middle of is in client_state.py. Bytes that cannot be used yet are held and reading
stops, so memory is bounded by what one read brings.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod

import structlog

from elizacloud.errors import Error
from elizacloud.relay.answers import OwnAnswer, answer_to, answer_to_bad
from elizacloud.relay.client_state import State
from elizacloud.relay.deadline import Deadline
from elizacloud.relay.exchange import Exchange
from elizacloud.relay.http1.head import BadMessage, cut_request_head
from elizacloud.relay.intake import Intake
from elizacloud.relay.reading import BOUNDED, SHORT, BoundedReads, room_for
from elizacloud.relay.server_settings import ServerSettings
from elizacloud.relay.turns import BULK_BYTES, Turns

logger = structlog.get_logger()

_HELD_BYTES = 64 << 10


class Incoming(BoundedReads):
    """The half of a client's connection that reads. The other half (server.py) does what heads ask for."""

    __slots__ = (
        "_advancing",
        "_body",
        "_body_wanted",
        "_deadline",
        "_exchange",
        "_held",
        "_owner",
        "_paused",
        "_searched",
        "_settings",
        "_state",
        "_transport",
        "_turns",
        "_waits",
        "_write_paused",
        "keep_alive",
    )

    def __init__(self, turns: Turns, settings: ServerSettings) -> None:
        self._turns = turns
        self._settings = settings
        self._transport: asyncio.Transport
        self._deadline: Deadline
        self._state: str = State.HEAD
        self._held = b""
        self._searched = 0
        """How much of `_held` is known to hold no end of a head."""
        self._exchange: Exchange | None = None
        self._body: Intake | None = None
        self._body_wanted = False
        self._paused = False
        self._write_paused = False
        self._owner = ""
        """Whose turn its requests take: the last one's owner, at first its address."""
        self._waits = False
        """For its turn, with what is held."""
        self._advancing = False
        self.keep_alive = True

    @abstractmethod
    def _begin(self, raw_head: bytes) -> None:
        """A whole head came: begin what it asks for. Raises BadMessage."""

    @abstractmethod
    def _refuse(self, answer: OwnAnswer) -> None:
        """What was sent cannot be read: nothing after it can be either."""

    def get_buffer(self, sizehint: int) -> memoryview:
        # Over TLS the hint is what has come, and uvloop forgets what was not taken of it when the client leaves. A request
        # ends then; an upgraded connection brings its last bytes to the agent.
        if self._state is State.PIPE:
            return room_for(sizehint)
        return BOUNDED if self._turns.alone else SHORT

    def data_received(self, data: bytes) -> None:
        if self._state is State.DISCARD:
            return
        begins = self._state is State.HEAD and not self._held
        self._held = self._held + data if self._held else data
        if self._waits:
            self._regulate()
        else:
            self._take_turn(len(data))
        if begins and self._held and self._state is State.HEAD:  # most heads come whole
            self._deadline.set(self._settings.headers_timeout_seconds)

    def _take_turn(self, size: int) -> None:
        """Use what is held, now or when it is its owner's turn."""
        if self._turns.now(self._owner, size, self._have_turn):
            self._advance()
        else:
            self._waits = True
            if size >= BULK_BYTES:
                self._regulate()

    def _have_turn(self, size: int) -> None:
        self._waits = False
        self._advance()

    def _advance(self) -> None:
        """Use what is held as far as the state allows."""
        if self._advancing or self._waits:
            return
        self._advancing = True
        try:
            while self._held and not self._waits:
                if self._state is State.HEAD and not self._write_paused:
                    if not self._read_head():
                        break
                elif self._state is State.BODY and self._body_wanted:
                    self._read_body()
                elif self._state is State.PIPE and self._exchange is not None:
                    held, self._held = self._held, b""
                    self._exchange.piped_up(held)
                else:
                    break
        # A name for each: mypyc gives one name one type, and an error of another type would end as a TypeError.
        except BadMessage as malformed:
            self._refuse(answer_to_bad(malformed))
        except Error as refused:
            self._refuse(answer_to(refused))
        except Exception as bug:  # this client's, which must not end whatever made us go on with it
            logger.error("a connection is cut: what came on it met a bug", exc_info=bug)
            self._state = State.DISCARD
            self._held = b""
            self._transport.abort()
        finally:
            self._advancing = False
        if self._held or self._paused or self._state is State.BODY:
            self._regulate()

    def _regulate(self) -> None:
        """Read on only while there is a use for what comes; while an answer is awaited, to see the client leave."""
        if self._state in (State.BODY, State.PIPE):
            read = self._body_wanted and not (self._waits and len(self._held) >= BULK_BYTES)
        else:
            read = self._state is State.DISCARD or len(self._held) <= _HELD_BYTES
        if read is self._paused and not self._transport.is_closing():
            self._paused = not read
            if read:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _read_head(self) -> bool:
        raw, self._held = cut_request_head(self._held, self._searched)
        if not raw:
            self._searched = len(self._held)
            return False
        self._searched = 0
        self._deadline.clear()
        self._begin(raw)
        return True

    def _read_body(self) -> None:
        exchange, body = self._exchange, self._body
        assert exchange is not None
        assert body is not None
        held, self._held = self._held, b""
        payload, self._held = body.feed(held)
        if payload:
            exchange.body(payload)
        if body.done and self._state is State.BODY:
            self._state = State.ANSWER
            self._deadline.clear()
            exchange.body_end(body.trailers)

    # client.Client: what the exchange wants of it

    def take_body(self) -> None:
        self._body_wanted = True
        self._deadline.set(self._settings.body_timeout_seconds)
        self._advance()

    def pause_body(self) -> None:
        self._body_wanted = False
        if self._state is State.BODY:
            self._deadline.clear()
        self._regulate()

    def resume_body(self) -> None:
        self._body_wanted = True
        if self._state is State.PIPE:
            self._regulate()
        elif self._state is State.BODY:
            self.take_body()

    def leave_body(self) -> None:
        self.keep_alive = False
        self._body_wanted = False

    def become_pipe(self) -> None:
        self._state = State.PIPE
        self._body_wanted = True
        self._advance()
        self._regulate()
