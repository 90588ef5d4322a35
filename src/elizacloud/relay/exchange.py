"""One request and its answer: the bytes' way from a client to an upstream and back, decided step by step.

    find a connection -> send the head -> the body as it comes -> the answer as it comes -> pool the connection

Driven by callbacks, without a task of its own unless a connection has to be made. No half-close exists on the way to an
agent, and writing to one that has answered and closed can lose its answer: so an answer that refuses the request stops
the upload. One that accepts it (2xx, keep-alive) does not: its agent is still reading.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import perf_counter

import structlog

from elizacloud.errors import Error
from elizacloud.relay.answers import OwnAnswer, answer_to, answer_to_full, answer_to_late, answer_to_lost
from elizacloud.relay.client import Client
from elizacloud.relay.destination import Destination, is_event_stream
from elizacloud.relay.edge import Request
from elizacloud.relay.headers import hygiene
from elizacloud.relay.headers.framed import framed
from elizacloud.relay.http1.body import LAST_CHUNK, chunk
from elizacloud.relay.http1.framing import Framing, Kind
from elizacloud.relay.http1.head import AnswerHead, Field
from elizacloud.relay.passing import Passing
from elizacloud.relay.surroundings import Surroundings
from elizacloud.relay.upstream import UpstreamConnection

logger = structlog.get_logger()

_SAFE_TO_REPEAT = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_OUTCOMES = ("", "1xx", "2xx", "3xx", "4xx", "5xx", "6xx", "7xx", "8xx", "9xx")


class Exchange(Passing):
    __slots__ = (
        "_answer_seconds",
        "_connect_seconds",
        "_connecting",
        "_destination",
        "_head",
        "_over",
        "_request",
        "_request_done",
        "_reused",
        "_sent_at",
        "_status",
        "_streams",
        "_upgrade",
    )

    def __init__(
        self,
        client: Client,
        request: Request,
        framing: Framing,
        destination: Destination,
        surroundings: Surroundings,
    ) -> None:
        super().__init__(client, framing, destination.flow, surroundings)
        self._request = request
        self._head = head = request.head
        self._destination = destination
        self._answer_seconds = destination.answer_seconds or surroundings.first_byte_timeout_seconds
        self._upgrade = hygiene.upgrade_of(head, framing)
        self._connecting: asyncio.Task[None] | None = None
        self._reused = False
        self._request_done = framing.kind is Kind.NONE or (framing.kind is Kind.LENGTH and not framing.length)
        self._status = 0
        self._streams = False
        self._over = False
        self._connect_seconds = 0.0
        self._sent_at = 0.0

    @property
    def answer_begun(self) -> bool:
        return self._status != 0

    def start(self) -> None:
        self._destination.began()
        self._metrics.in_flight += 1
        if self._flow is not None:
            self._flow.between(self)
        connection = self._destination.lease()
        if connection is not None:
            self._send(connection, reused=True)
        else:
            self._connect()

    def _connect(self) -> None:
        self._connecting = self._surroundings.tasks.spawn(self._connected(), "connect upstream")

    async def _connected(self) -> None:
        began_at = perf_counter()
        try:
            connection = await self._destination.connect()
        except Error as error:
            self._connecting = None
            self._refuse(answer_to(error))
            return
        except Exception as bug:  # else nobody would answer the client
            logger.error("a request met a bug on its way to the upstream", exc_info=bug)
            self._connecting = None
            self._refuse(answer_to(Error("cannot answer: the relay met a bug; its log has the details")))
            return
        # In the same step of the event loop as the last look at the netmap: no await before the head is written.
        self._connecting = None
        self._connect_seconds += perf_counter() - began_at
        self._send(connection, reused=connection.idle_since > 0)

    def _send(self, connection: UpstreamConnection, *, reused: bool) -> None:
        self._connection = connection
        self._reused = reused
        connection.begin(self, self._head.method, upgrade=self._upgrade is not None)
        if connection.closed:
            connection.kill("it closed the connection")
            return
        head = self._destination.request_head(self._head, self._framing, self._upgrade)
        connection.write(head, may_wait=self._surroundings.writes_may_wait())
        self._sent_at = perf_counter()
        if self._request_done:
            connection.expect_answer(self._answer_seconds)
        else:
            self._client.take_body()

    # From the client

    def body_end(self, trailers: list[Field]) -> None:
        self._request_done = True
        connection = self._connection
        if connection is None or self._stopped_upload:
            return
        if self._framing.kind is Kind.CHUNKED:
            connection.write(LAST_CHUNK + hygiene.trailer_lines(trailers, to_agent=True) + b"\r\n")
        connection.expect_answer(self._answer_seconds)

    def client_gone(self) -> None:
        """The client left: nothing more is wanted from the upstream."""
        self._let_go()
        self._end("upgraded" if self._status == 101 else "aborted")

    def _let_go(self) -> None:
        if self._connecting is not None:
            self._connecting.cancel()
            self._connecting = None
        connection = self._connection
        if connection is not None:
            self._connection = None
            if connection.piping:
                connection.close()
            else:
                connection.abort()

    # From the upstream

    def now(self, size: int, take: Callable[[int], None]) -> int:
        return self._surroundings.turns.now(self._request.owner_id or self._request.client, size, take)

    def alone(self) -> bool:
        return self._surroundings.turns.alone

    def informational(self, head: AnswerHead) -> None:
        if self._head.minor == 0:
            return
        lines = self._destination.answer_lines(head)
        self._client.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (head.status, head.reason, lines))

    def answer(self, head: AnswerHead, framing: Framing, data: bytes) -> None:
        connection = self._connection
        assert connection is not None
        came_at = perf_counter()
        if is_event_stream(head):
            try:
                self._stream = self._destination.became_stream()
            except Error as error:
                self.fail(answer_to(error))
                return
            self._streams = True
            self._metrics.streams += 1
        self._metrics.first_byte.observe(came_at - self._request.began_at)
        if not self._request_done and (head.status >= 300 or not connection.keep_alive):
            self._stopped_upload = True
            self._client.leave_body()
        self._status = head.status
        raw = self._answer_head(head, framing, came_at)
        if data:
            self._sent(len(data))
            raw += chunk(data) if self._chunk_answer else data
        self._client.write(raw)

    def _answer_head(self, head: AnswerHead, framing: Framing, came_at: float) -> bytes:
        client, request = self._client, self._request
        lines, self._chunk_answer, client.keep_alive = framed(head, framing, self._head.minor, client.keep_alive)
        own = self._sent_at - request.began_at - self._connect_seconds + perf_counter() - came_at
        self._metrics.own_time.observe(own)
        end = b"Server-Timing: relay;dur=%.3f\r\n\r\n" % (own * 1000) if request.for_owner else b"\r\n"
        return b"".join((lines, self._destination.answer_lines(head), request.edge_lines, end))

    def answer_end(self, trailers: list[Field]) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        if self._chunk_answer:
            self._client.write(LAST_CHUNK + hygiene.trailer_lines(trailers, to_agent=False) + b"\r\n")
        if self._request_done and not self._stopped_upload:
            self._destination.give_back(connection)
        else:
            connection.close()
        if not self._request_done:
            self._client.leave_body()
        self._end(_OUTCOMES[self._status // 100])
        self._client.answered()

    def upgraded(self, head: AnswerHead, data: bytes) -> None:
        assert self._upgrade is not None
        self._stream = self._destination.became_stream()
        self._status = 101
        self._metrics.upgraded += 1
        lines = self._destination.answer_lines(head) + self._request.edge_lines
        upgrade = hygiene.upgrade_lines(head, self._upgrade)
        self._client.write(b"HTTP/1.1 101 %b\r\n%b%b\r\n" % (head.reason, lines, upgrade))
        if data:
            self.piped(data)
        self._client.become_pipe()

    def upstream_lost(self, reason: str) -> None:
        connection, self._connection = self._connection, None
        if self._status == 101:
            self._end("upgraded")
            self._client.close()
        elif self._status:
            self._end("cut_short")
            self._client.abort()
        elif (
            self._reused
            and connection is not None
            and not connection.answered
            and self._framing.kind is Kind.NONE
            and self._head.method in _SAFE_TO_REPEAT
        ):
            # The upstream closed an idle connection while this request was on its way: nothing can have come of it.
            self._connect()
        else:
            self._refuse(answer_to_lost(self._destination.kind, reason))

    def answer_late(self) -> None:
        self._connection = None
        self._refuse(answer_to_late(self._destination.kind, self._answer_seconds))

    def upstream_full(self) -> None:
        connection = self._connection
        upload_waits = self._status == 101 or not (self._request_done or self._stopped_upload)
        if connection is None or not upload_waits:
            return
        # It may read on once it has spoken, and cannot speak while we do not listen: the client, or a limit, holds that up.
        if connection.reading_paused or self._bytes_out != self._out_before:
            self._wait_for_room(connection)
            return
        self._connection = None
        connection.abort()
        self.fail(answer_to_full(self._destination.kind, self._surroundings.standstill_seconds))

    # The end

    def fail(self, answer: OwnAnswer) -> None:
        """The request cannot go on: say so if there still is a way to, and let go of the upstream."""
        self._let_go()
        if self._status:
            self._end(answer.code)
            self._client.abort()
        else:
            self._refuse(answer)

    def _refuse(self, answer: OwnAnswer) -> None:
        if not self._request_done:
            self._client.leave_body()
        close = not self._client.keep_alive
        head_only = self._head.method == b"HEAD"
        self._client.write(answer.encode(head_only=head_only, close=close, edge_lines=self._request.edge_lines))
        self._status = answer.status
        self._end(answer.code)
        self._client.answered()

    def _end(self, outcome: str) -> None:
        if self._over:
            return  # a client that reads nothing is still there, and may fail or go
        self._over = True
        metrics = self._metrics
        metrics.in_flight -= 1
        if self._streams:
            metrics.streams -= 1
        elif self._status == 101:
            metrics.upgraded -= 1
        kind = self._destination.kind
        metrics.requests[kind, outcome] += 1
        self._surroundings.access_log.add(self._request, self._status, outcome, kind, self._bytes_in, self._bytes_out)
        self._destination.ended()
