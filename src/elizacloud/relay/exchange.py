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

from elizacloud.errors import Error
from elizacloud.relay.answers import Answer, OwnAnswer, answer_to
from elizacloud.relay.client import Client
from elizacloud.relay.destination import Destination, is_event_stream
from elizacloud.relay.edge import Request
from elizacloud.relay.headers import hygiene
from elizacloud.relay.http1.body import LAST_CHUNK, chunk, chunk_parts
from elizacloud.relay.http1.framing import Framing, Kind
from elizacloud.relay.http1.head import AnswerHead, Field, kept_with_head
from elizacloud.relay.surroundings import Surroundings
from elizacloud.relay.upstream import UpstreamConnection
from elizacloud.relay.uses import OpenStream

_SAFE_TO_REPEAT = frozenset({b"GET", b"HEAD", b"OPTIONS"})
_OUTCOMES = ("", "1xx", "2xx", "3xx", "4xx", "5xx", "6xx", "7xx", "8xx", "9xx")


class Exchange:
    __slots__ = (
        "_bytes_in",
        "_bytes_out",
        "_chunk_answer",
        "_client",
        "_connect_seconds",
        "_connecting",
        "_connection",
        "_destination",
        "_flow",
        "_framing",
        "_head",
        "_over",
        "_request",
        "_request_done",
        "_reused",
        "_sent_at",
        "_status",
        "_stopped_upload",
        "_stream",
        "_streams",
        "_surroundings",
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
        self._client = client
        self._request = request
        self._head = head = request.head
        self._framing = framing
        self._destination = destination
        self._flow = destination.flow
        self._surroundings = surroundings
        self._upgrade = hygiene.upgrade_of(head, framing)
        self._connection: UpstreamConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._reused = False
        self._request_done = framing.kind is Kind.NONE or (framing.kind is Kind.LENGTH and not framing.length)
        self._stopped_upload = False
        self._status = 0
        self._streams = False
        self._stream: OpenStream | None = None
        self._chunk_answer = False
        self._over = False
        self._connect_seconds = 0.0
        self._sent_at = 0.0
        self._bytes_in = 0
        self._bytes_out = 0

    @property
    def answer_begun(self) -> bool:
        return self._status != 0

    def start(self) -> None:
        self._destination.began()
        self._surroundings.metrics.in_flight += 1
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
        connection.write(self._destination.request_head(self._head, self._framing, self._upgrade))
        self._sent_at = perf_counter()
        if self._request_done:
            connection.expect_answer(self._surroundings.first_byte_timeout_seconds)
        else:
            self._client.take_body()

    # From the client

    def body(self, data: bytes) -> None:
        if self._connection is None or self._stopped_upload:
            return
        self._received(len(data))
        for part in chunk_parts(data) if self._framing.kind is Kind.CHUNKED else (data,):
            self._connection.write(part)

    def body_end(self, trailers: list[Field]) -> None:
        self._request_done = True
        connection = self._connection
        if connection is None or self._stopped_upload:
            return
        if self._framing.kind is Kind.CHUNKED:
            connection.write(LAST_CHUNK + hygiene.trailer_lines(trailers, to_agent=True) + b"\r\n")
        connection.expect_answer(self._surroundings.first_byte_timeout_seconds)

    def piped_up(self, data: bytes) -> None:
        if self._connection is not None:
            self._received(len(data))
            if self._stream is not None and (answer := self._stream.up(data)) is not None:
                self._client.write(answer)
            else:
                self._connection.write(data)

    def client_writable(self, writable: bool) -> None:
        if self._flow is not None:
            writable = self._flow.down.may_open(writable)
        if self._connection is not None:
            if writable:
                self._connection.resume_reading()
            else:
                self._connection.pause_reading()

    def client_gone(self) -> None:
        """The client left: nothing more is wanted from the upstream."""
        self._let_go()
        if not self._over:
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
            self._surroundings.metrics.streams += 1
        self._surroundings.metrics.first_byte.observe(came_at - self._request.began_at)
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
        lines = [_status_line(head), self._destination.answer_lines(head), self._request.edge_lines]
        client = self._client
        self._chunk_answer = False
        if framing.kind is Kind.LENGTH:
            lines.append(b"Content-Length: %d\r\n" % framing.length)
        elif framing.kind is Kind.NONE:
            if head.status != 204:
                # For HEAD and 304 the length is that of the body which is not sent.
                lines += [
                    b"Content-Length: " + value + b"\r\n"
                    for lower, _, value in head.fields
                    if lower == b"content-length"
                ]
        elif self._head.minor:
            self._chunk_answer = True
            lines.append(b"Transfer-Encoding: chunked\r\n")
        else:
            client.keep_alive = False
        if not client.keep_alive:
            lines.append(b"Connection: close\r\n")
        elif not self._head.minor:
            lines.append(b"Connection: keep-alive\r\n")
        own = self._sent_at - self._request.began_at - self._connect_seconds + perf_counter() - came_at
        self._surroundings.metrics.own_time.observe(own)
        if self._request.for_owner:
            lines.append(b"Server-Timing: relay;dur=%.3f\r\n\r\n" % (own * 1000))
        else:
            lines.append(b"\r\n")
        return b"".join(lines)

    def answer_data(self, data: bytes) -> None:
        self._sent(len(data))
        if self._stream is not None:
            self._stream.down(data)
        for part in chunk_parts(data) if self._chunk_answer else (data,):
            self._client.write(part)

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
        self._surroundings.metrics.upgraded += 1
        lines = self._destination.answer_lines(head) + self._request.edge_lines
        upgrade = hygiene.upgrade_lines(head, self._upgrade)
        self._client.write(b"HTTP/1.1 101 %b\r\n%b%b\r\n" % (head.reason, lines, upgrade))
        if data:
            self.piped(data)
        self._client.become_pipe()

    def piped(self, data: bytes) -> None:
        self._sent(len(data))
        if self._stream is not None:
            self._stream.down(data)
        self._client.write(data)

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
        elif self._destination.kind == "api":
            self._refuse(
                Answer(502, "control_plane_unavailable", "cannot answer: the control plane closed the connection", 1)
            )
        else:
            self._refuse(
                Answer(502, "agent_refused", f"cannot reach the agent: {reason}; is it running and healthy?", 1)
            )

    def answer_late(self) -> None:
        self._connection = None
        seconds = self._surroundings.first_byte_timeout_seconds
        who, code = ("control plane", "api_timeout") if self._destination.kind == "api" else ("agent", "agent_timeout")
        self._refuse(Answer(504, code, f"cannot answer: the {who} did not begin its answer in {seconds:g} s"))

    def upstream_writable(self, writable: bool) -> None:
        if self._flow is not None:
            writable = self._flow.up.may_open(writable)
        if writable:
            self._client.resume_body()
        else:
            self._client.pause_body()

    def _received(self, size: int) -> None:
        self._bytes_in += size
        self._surroundings.metrics.bytes_in += size
        if self._flow is not None and self._flow.up.must_close(size):
            self._client.pause_body()

    def _sent(self, size: int) -> None:
        self._bytes_out += size
        self._surroundings.metrics.bytes_out += size
        connection = self._connection
        if self._flow is not None and self._flow.down.must_close(size) and connection is not None:
            connection.pause_reading()

    # The end

    def fail(self, answer: OwnAnswer) -> None:
        """The request cannot go on, by its sender's fault: say so if there still is a way to, and let go of the upstream."""
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
        self._over = True
        metrics = self._surroundings.metrics
        metrics.in_flight -= 1
        if self._streams:
            metrics.streams -= 1
        elif self._status == 101:
            metrics.upgraded -= 1
        kind = self._destination.kind
        metrics.requests[kind, outcome] += 1
        self._surroundings.access_log.add(self._request, self._status, outcome, kind, self._bytes_in, self._bytes_out)
        self._destination.ended()


@kept_with_head
def _status_line(head: AnswerHead) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)
