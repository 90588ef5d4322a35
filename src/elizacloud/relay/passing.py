"""What passes between the two ends of an exchange, both ways: framed anew, counted, held to its rate, and no faster than
the other end takes it.
"""

from __future__ import annotations

from elizacloud.relay.client import Client
from elizacloud.relay.http1.body import chunk_parts
from elizacloud.relay.http1.framing import Framing, Kind
from elizacloud.relay.surroundings import Surroundings
from elizacloud.relay.throttle import Flow
from elizacloud.relay.upstream import UpstreamConnection
from elizacloud.relay.uses import OpenStream


class Passing:
    """The half of an exchange that bodies and upgraded connections pass through; exchange.py decides what is passed."""

    __slots__ = (
        "_bytes_in",
        "_bytes_out",
        "_chunk_answer",
        "_client",
        "_connection",
        "_flow",
        "_framing",
        "_metrics",
        "_out_before",
        "_stopped_upload",
        "_stream",
        "_surroundings",
    )

    def __init__(self, client: Client, framing: Framing, flow: Flow | None, surroundings: Surroundings) -> None:
        self._client = client
        self._framing = framing
        """Of the request."""
        self._flow = flow
        self._surroundings = surroundings
        self._metrics = surroundings.metrics
        self._connection: UpstreamConnection | None = None
        self._stopped_upload = False
        self._stream: OpenStream | None = None
        self._chunk_answer = False
        self._bytes_in = 0
        self._bytes_out = 0
        self._out_before = 0
        """Bytes out, when the upstream was last found to take none."""

    # From the client

    def body(self, data: bytes) -> None:
        if self._connection is None or self._stopped_upload:
            return
        self._received(len(data))
        for part in chunk_parts(data) if self._framing.kind is Kind.CHUNKED else (data,):
            self._connection.write(part)

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

    def _received(self, size: int) -> None:
        self._bytes_in += size
        self._metrics.bytes_in += size
        if self._flow is not None and self._flow.up.must_close(size):
            self._client.pause_body()

    # From the upstream

    def answer_data(self, data: bytes) -> None:
        self._sent(len(data))
        if self._stream is not None:
            self._stream.down(data)
        for part in chunk_parts(data) if self._chunk_answer else (data,):
            self._client.write(part)

    def piped(self, data: bytes) -> None:
        self._sent(len(data))
        if self._stream is not None:
            self._stream.down(data)
        self._client.write(data)

    def upstream_writable(self, writable: bool) -> None:
        if not writable and self._connection is not None:
            self._wait_for_room(self._connection)
        if self._flow is not None:
            writable = self._flow.up.may_open(writable)
        if writable:
            self._client.resume_body()
        else:
            self._client.pause_body()

    def _wait_for_room(self, connection: UpstreamConnection) -> None:
        self._out_before = self._bytes_out
        connection.expect_room(self._surroundings.standstill_seconds)

    def _sent(self, size: int) -> None:
        self._bytes_out += size
        self._metrics.bytes_out += size
        connection = self._connection
        if self._flow is not None and self._flow.down.must_close(size) and connection is not None:
            connection.pause_reading()
