"""A client's connection: requests come in one after another, each is one exchange, answers go out in order.

incoming.py reads what the client sends. Here is what becomes of a head, what the relay answers itself, how long the
client may take, and how the connection ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from elizacloud.errors import Error
from elizacloud.relay.answers import Answer, OwnAnswer, answer_to
from elizacloud.relay.callers.caller import Credential
from elizacloud.relay.client_state import State
from elizacloud.relay.deadline import Deadline
from elizacloud.relay.destinations import Destinations
from elizacloud.relay.edge import Edge, Request
from elizacloud.relay.exchange import Exchange
from elizacloud.relay.headers.forwarded import Peer
from elizacloud.relay.http1.framing import Kind, request_framing, request_keeps_alive
from elizacloud.relay.http1.head import read_request_head
from elizacloud.relay.incoming import Incoming
from elizacloud.relay.intake import Intake
from elizacloud.relay.limits import Limits
from elizacloud.relay.outgoing import Outgoing
from elizacloud.relay.server_settings import ServerSettings
from elizacloud.relay.surroundings import Surroundings
from elizacloud.relay.upstream import WRITE_AHEAD_BYTES

_NOTHING = (b"", b"\r\n")
_DISCARD_SECONDS = 5.0
_FAREWELL_SECONDS = 1.0


class ClientConnection(Incoming):
    __slots__ = (
        "_destinations",
        "_edge",
        "_headless",
        "_limits",
        "_linger_seconds",
        "_on_closed",
        "_on_open",
        "_outgoing",
        "_peer",
        "_request",
        "_surroundings",
    )

    def __init__(
        self,
        edge: Edge,
        destinations: Destinations,
        limits: Limits,
        surroundings: Surroundings,
        settings: ServerSettings,
        on_open: Callable[[ClientConnection], None],
        on_closed: Callable[[ClientConnection], None],
    ) -> None:
        super().__init__(surroundings.turns, settings)
        self._edge = edge
        self._destinations = destinations
        self._limits = limits
        self._surroundings = surroundings
        self._on_open = on_open
        self._on_closed = on_closed
        self._outgoing: Outgoing
        self._peer: Peer
        self._request: Request | None = None
        """The present one, from its head to the end of its answer."""
        self._linger_seconds: float | None = None
        self._headless = True
        """No whole head has come yet."""

    def __repr__(self) -> str:
        return f"<ClientConnection {self._state}>"

    def drain(self, linger_seconds: float) -> None:
        """Say goodbye in the next answer, and wait for one more request no longer than this."""
        self._linger_seconds = linger_seconds
        if self._exchange is None or not self._exchange.answer_begun:
            self.keep_alive = False
        if self._state is State.HEAD and not self._held:
            self._deadline.set(linger_seconds)

    def recheck(self, why_not: Callable[[Credential], Error | None]) -> None:
        """End the present request, whatever it has become, if its credential does not count any more."""
        request = self._request
        if request and request.caller and (error := why_not(request.caller.credential)):
            request.caller = None
            self._refuse(answer_to(error))

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are, without saying so
        self._transport.set_write_buffer_limits(high=WRITE_AHEAD_BYTES)
        loop = asyncio.get_running_loop()
        self._deadline = Deadline(loop, self._late)
        self._outgoing = Outgoing(self._transport, loop.call_soon)
        self._deadline.set(self._settings.headers_timeout_seconds)
        self._surroundings.metrics.clients += 1
        self._on_open(self)
        secure = self._transport.get_extra_info("sslcontext") is not None
        self._peer = self._edge.proxies.peer(self._transport.get_extra_info("peername"), secure=secure)
        self._owner = self._peer.address
        shares = self._limits.connected(self._peer)
        if shares > 1:
            self._transport.abort()
        elif shares:
            self._refuse(
                Answer(429, "too_many_connections", "cannot take more connections from this address; close some", 5)
            )

    def eof_received(self) -> None:
        # A client that ended its half is gone, as for nginx and Go: else nobody would notice one that left a stream.
        self._outgoing.flush()

    def pause_writing(self) -> None:
        self._write_paused = True
        if self._exchange is not None:
            self._exchange.client_writable(False)

    def resume_writing(self) -> None:
        self._write_paused = False
        if self._exchange is not None:
            self._exchange.client_writable(True)
        elif self._state is State.HEAD:
            self._advance()

    def connection_lost(self, error: Exception | None) -> None:
        if self._state is State.PIPE and self._held and self._exchange is not None:
            self._exchange.piped_up(self._held)  # it waited for its turn
        self._state = State.CLOSED
        self._deadline.stop()
        self._held = b""
        self._surroundings.metrics.clients -= 1
        self._limits.disconnected(self._peer, headless=self._headless)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_gone()
        self._on_closed(self)

    # client.Client

    def write(self, data: bytes) -> None:
        self._outgoing.write(data, may_wait=self._surroundings.writes_may_wait())

    def answered(self) -> None:
        unread_body = self._state is State.BODY
        self._request = self._exchange = self._body = None
        if self.keep_alive and not unread_body:
            self._state = State.HEAD
            self._searched = 0
            if self._held:
                self._deadline.set(self._settings.headers_timeout_seconds)
                self._take_turn(len(self._held))
            else:
                self._deadline.set(self._linger_seconds or self._settings.idle_timeout_seconds)
                if self._paused:
                    self._regulate()
        elif unread_body or self._held:
            self._discard()
        else:
            self.close()

    def abort(self) -> None:
        self._outgoing.flush()
        self._transport.abort()

    def close(self) -> None:
        self._outgoing.flush()
        self._transport.close()

    # Requests

    def _begin(self, raw_head: bytes) -> None:
        if self._headless:
            self._headless = False
            self._limits.head_came(self._peer)
        head = read_request_head(raw_head)
        self.keep_alive = self._linger_seconds is None and request_keeps_alive(head)
        framing = request_framing(head)
        has_body = framing.kind is Kind.CHUNKED or framing.length > 0
        self._state = State.BODY if has_body else State.ANSWER
        request = self._request = self._edge.receive(head, self._peer)
        try:
            own = self._edge.own_answer(request)
            if own is not None:
                self._answer(own)
                return
            self._body = Intake(framing, self._settings.max_body_bytes) if has_body else None
            destination = self._destinations.find(request)
        except Error as error:
            self._answer(answer_to(error))
            return
        self._body_wanted = False
        if request.owner_id and self._owner != request.owner_id:
            self._turns.came_from(self._peer.address, request.owner_id)
        self._owner = request.owner_id or request.client
        self._exchange = Exchange(self, request, framing, destination, self._surroundings)
        self._exchange.start()

    # Answers of our own

    def _answer(self, answer: OwnAnswer) -> None:
        request = self._request
        assert request is not None
        self._ended(request, answer)
        if self._state is State.BODY:
            self.keep_alive = False
        head_only = request.head.method == b"HEAD"
        self.write(answer.encode(head_only=head_only, close=not self.keep_alive, edge_lines=request.edge_lines))
        self.answered()

    def _refuse(self, answer: OwnAnswer) -> None:
        self.keep_alive = False
        if self._exchange is not None:
            self._exchange.fail(answer)
            return
        request = self._request or self._edge.unread(self._peer)
        self._ended(request, answer)
        self.write(answer.encode(head_only=False, close=True, edge_lines=request.edge_lines))
        self._discard()

    def _ended(self, request: Request, answer: OwnAnswer) -> None:
        self._surroundings.metrics.requests["none", answer.code] += 1
        self._surroundings.access_log.add(request, answer.status, answer.code, "none")

    def _discard(self, seconds: float = _DISCARD_SECONDS) -> None:
        self._state = State.DISCARD
        self._held = b""
        self._outgoing.flush()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._deadline.set(seconds)
        self._regulate()

    def _late(self) -> None:
        if self._state is State.HEAD and self._held not in _NOTHING:
            self._refuse(Answer(408, "request_timeout", "cannot read the request: its headers took too long"))
        elif self._state is State.BODY:
            self._body_late()
        elif self._state is State.HEAD and self._transport.can_write_eof():
            self._discard(_FAREWELL_SECONDS)  # not a reset: a client whose request crosses with this sends it again
        elif self._state in (State.HEAD, State.DISCARD):
            self.close()

    def _body_late(self) -> None:
        exchange, body, settings = self._exchange, self._body, self._settings
        assert exchange is not None
        assert body is not None
        least = settings.body_bytes_per_second * settings.body_timeout_seconds
        # Once the answer has begun this is a conversation, in which either side may be silent.
        if body.take_progress() >= least or exchange.answer_begun:
            self._deadline.set(settings.body_timeout_seconds)
        else:
            self._refuse(Answer(408, "request_timeout", "cannot read the request: its body comes too slowly"))
