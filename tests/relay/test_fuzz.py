"""Any bytes in, in any pieces: no crash, and what leaves for the agent is read by another parser exactly as we meant it."""

import asyncio
import contextlib
from pathlib import Path

import httptools
from hypothesis import given, settings
from hypothesis import strategies as st

from elizacloud.cipher import Cipher, new_secret_key
from elizacloud.relay.link.client import LinkClient
from elizacloud.relay.metrics import Metrics
from elizacloud.relay.server import ClientConnection
from elizacloud.relay.upstream import UpstreamConnection
from elizacloud.relay.worker import Worker, WorkerSettings
from elizacloud.tailnet.netmap import Netmap
from elizacloud.upstreams import Snapshot
from tests.relay.conftest import AGENT, IP, TOKEN, TOKENS, upstream


class Transport(asyncio.Transport):
    """Keeps what was written; bytes come when the test says so."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert data, "an empty write ends a chunked body by accident"
        self.written += bytes(data)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Bench:
    """A worker without sockets: one client connection, upstream connections at will."""

    def __init__(self) -> None:
        link = LinkClient(
            Path("/nowhere"), Path("/nowhere"), Cipher(new_secret_key()), name="w", offline_grace_seconds=60
        )
        link.table.replace(Snapshot("e", 1, (upstream(),), (), tuple(TOKENS)))
        link._heard_at = link._clock()
        netmap = Netmap()
        peer = {"ID": "7", "PublicKey": "k", "TailscaleIPs": [IP], "Tags": ["tag:agent", f"tag:a-{AGENT}"]}
        netmap.apply({"InitialStatus": {"TailscaleIPs": ["100.64.0.1"], "Peer": {"k": peer}}})
        self.metrics = Metrics()
        self.upstreams: list[tuple[UpstreamConnection, Transport]] = []
        self.worker = Worker(
            WorkerSettings("agents.test", Path("/nowhere"), "cell"), link, netmap, self._dial, self.metrics
        )
        self.transport = Transport()
        self.client: ClientConnection = self.worker._client()
        self.client.connection_made(self.transport)

    async def _dial(self, ip: str, port: int) -> UpstreamConnection:
        connection, transport = UpstreamConnection(), Transport()
        connection.connection_made(transport)
        self.upstreams.append((connection, transport))
        return connection

    async def feed(self, raw: bytes, step: int) -> None:
        for at in range(0, len(raw), step):
            if self.transport.closed:
                return
            self.client.data_received(raw[at : at + step])
            await self.settle()

    async def settle(self) -> None:
        for _ in range(6):
            await asyncio.sleep(0)

    def end(self) -> None:
        self.client.connection_lost(None)
        for connection, _ in self.upstreams:
            connection.connection_lost(None)


class Reading:
    def __init__(self) -> None:
        self.requests = 0
        self.heads: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.heads.append((name.lower(), value))

    def on_message_complete(self) -> None:
        self.requests += 1


def llhttp_reads(raw: bytes) -> Reading:
    """What another server would make of it; raises when it would refuse it. It reads any method as POST."""
    reading = Reading()
    method, blank, rest = raw.partition(b" ")
    known = method in (b"GET", b"HEAD", b"POST", b"PUT")
    with contextlib.suppress(httptools.HttpParserUpgrade):
        httptools.HttpRequestParser(reading).feed_data(raw if known or not raw else b"POST" + blank + rest)
    return reading


LINES = [
    b"Host: x\r\n",
    f"Authorization: Bearer {TOKEN}\r\n".encode(),
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"transfer-encoding:chunked\r\n",
    b"Connection: close\r\n",
    b"Connection: content-length, x\r\n",
    b"Connection: Upgrade\r\nUpgrade: x\r\n",
    b"X: y\r\n",
    b"X_Content-Length: 5\r\n",
    b"X: \r\n",
    b"TE: trailers\r\n",
    b"Expect: 100-continue\r\n",
    b"A: b\n",
    b" fold\r\n",
    b"\x00\r\n",
]
BODIES = [
    b"",
    b"hello",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;x\r\nhello\r\n0\r\nT: v\r\nContent-Length: 9\r\n\r\n",
    b"0\r\n\r\n",
    b"5\r\nhel",
    b"\r\n",
]
METHODS = [b"GET", b"POST", b"PUT", b"BREW", b"HEAD", b"CONNECT", b"G ET"]
REQUEST = st.builds(
    lambda method, lines, body: (
        method + f" /api/relay/{AGENT}/x HTTP/1.1\r\n".encode() + b"".join(lines) + b"\r\n" + body
    ),
    st.sampled_from(METHODS),
    st.lists(st.sampled_from(LINES), max_size=6).map(lambda lines: [*LINES[:2], *lines])
    | st.lists(st.sampled_from(LINES), max_size=6),
    st.sampled_from(BODIES),
)
ANYTHING = st.lists(REQUEST | st.binary(max_size=40), max_size=4).map(b"".join)
ANSWERS = st.lists(
    st.sampled_from(
        [
            b"HTTP/1.1 200 OK\r\n",
            b"HTTP/1.1 204 No\r\n",
            b"HTTP/1.1 100 Go\r\n\r\n",
            b"HTTP/1.1 101 Go\r\n\r\n",
            b"HTTP/1.0 404 No\r\n",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"Connection: close\r\n",
            b"X: y\r\n",
            b"\r\n",
            b"hello",
            b"5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"\x00",
        ]
    ),
    max_size=10,
).map(b"".join)


@settings(max_examples=300, deadline=None)
@given(ANYTHING, st.integers(1, 60))
async def test_no_request_leaves_that_another_parser_reads_otherwise(raw: bytes, step: int) -> None:
    bench = Bench()
    await bench.feed(raw, step)
    for _, transport in bench.upstreams:
        reading = llhttp_reads(transport.written)
        # No answer was given, so there is at most one request on each connection, and its credentials are the agent's.
        assert reading.requests <= 1
        values = dict(reading.heads)
        assert values.get(b"authorization", b"Bearer eca_agentsowntoken") == b"Bearer eca_agentsowntoken"
        assert values.get(b"host", b"100.64.0.7:2138") == b"100.64.0.7:2138"
    bench.end()
    await bench.settle()
    assert bench.metrics.in_flight == 0
    assert bench.metrics.clients == 0


@settings(max_examples=300, deadline=None)
@given(ANSWERS, st.integers(1, 60), st.sampled_from([b"GET", b"HEAD", b"POST"]))
async def test_no_answer_leaves_that_another_parser_refuses(raw: bytes, step: int, method: bytes) -> None:
    bench = Bench()
    head = f" /api/relay/{AGENT}/x HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    await bench.feed(method + head, 4096)
    ((connection, transport),) = bench.upstreams
    for at in range(0, len(raw), step):
        if transport.closed:
            break
        connection.data_received(raw[at : at + step])
    if method != b"HEAD":
        httptools.HttpResponseParser(object()).feed_data(bench.transport.written)
    bench.end()
    await bench.settle()
    assert bench.metrics.in_flight == 0
