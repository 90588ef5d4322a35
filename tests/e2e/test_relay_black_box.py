"""The relay from outside: any HTTP at its front door comes out at a real agent, over WireGuard, as it went in.

Everything here runs at both fronts (an agent by path and by host) and in both ways to dial (tailscaled's LocalAPI, and TUN
mode in a network namespace of its own). It knows an address, a token and the agent of tests/fakes/raw_agent.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
import websockets
from websockets.asyncio.client import ClientConnection, connect

from tests.conftest import CONTROL_SERVER
from tests.e2e.doors import WAYS, WITHIN_SECONDS, Door, Place, agent_dialled
from tests.fakes import raw_agent

FIRST_BYTE_SECONDS, HEADERS_SECONDS = 3, 2
SIZES = [0, 1, 125, 65_535, 65_536, 65_537, 1_000_003]
LARGE_BYTES = (1000 if os.environ.get("CHAOS") == "all" else 50) * 1000 * 1000
"""A gigabyte under `make chaos`."""
MOST_GROWTH_BYTES = 16 << 20
"""Of a worker's memory, whatever passes through it."""


@pytest.fixture(scope="module", params=WAYS)
def running(request: pytest.FixtureRequest) -> Iterator[Place]:
    deadlines = {
        "ELIZACLOUD_FIRST_BYTE_TIMEOUT_SECONDS": str(FIRST_BYTE_SECONDS),
        "ELIZACLOUD_HEADERS_TIMEOUT_SECONDS": str(HEADERS_SECONDS),
    }
    mode, headscale = request.param
    with agent_dialled(mode, raw_agent.__file__, deadlines, headscale=headscale) as place:
        yield place


@pytest.fixture(params=["path", "host"])
async def door(
    running: Place, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> AsyncIterator[Door]:
    record_property(CONTROL_SERVER, running.server)
    made = Door(running, by_host=request.param == "host")
    yield made
    for client in made.clients:
        client.close()


def pattern(size: int) -> bytes:
    return (raw_agent.PATTERN * (size // len(raw_agent.PATTERN) + 1))[:size]


def chunked(data: bytes, *trailers: str, piece: int = 70_000) -> bytes:
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in pieces)
    return body + b"0\r\n" + "".join(f"{line}\r\n" for line in trailers).encode() + b"\r\n"


# Methods, targets, headers


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "M-SEARCH", "BREW"])
async def test_every_method_arrives(door: Door, method: str) -> None:
    seen = await door.seen(method, "/echo", "Content-Length: 0")
    assert seen["head"][0].startswith(f"{method} /echo ")


async def test_a_head_has_the_length_and_no_body(door: Door) -> None:
    client = await door.client()
    async with asyncio.timeout(WITHIN_SECONDS):
        answer = await client.ask(door.head("HEAD", "/down/1000"), head_only=True)
        assert (answer.status, answer.header("Content-Length")) == (200, "1000")
        assert (await client.ask(door.head("GET", "/down/3"))).body == pattern(3)


@pytest.mark.parametrize(
    "target",
    [
        "/echo/a%2Fb%2f..%2F%00",
        "/echo//double///slashes//",
        "/echo/./a/../b/.",
        "/echo/%7Euser/~user/%C3%A9",
        "/echo?",
        "/echo?a=1&a=2&&=;x=%20+%2B#".removesuffix("#"),
        "/echo?url=http://host/?x=y&empty",
        "/echo;v=1/a:b@c!$&'()*+,=",
        "/echo?" + "q" * 8000,
    ],
)
async def test_path_and_query_are_kept_byte_for_byte(door: Door, target: str) -> None:
    seen = await door.seen("GET", target)
    assert seen["head"][0] == f"GET {target} HTTP/1.1"


async def test_headers_of_the_client_arrive_in_order_and_ours_replace_the_hop(door: Door) -> None:
    fields = ["X-One: 1", "x-two:  spaces  within  ", "X-One: again", "X-Empty:", "Accept-Encoding: br, gzip"]
    seen = await door.seen("GET", "/echo", *fields, "Connection: keep-alive, X-Hop", "X-Hop: gone")
    lines = seen["head"][1:]
    kept = [line for line in lines if line.lower().startswith(("x-one", "x-two", "x-empty", "accept-encoding"))]
    names_and_values = [(line.partition(":")[0].lower(), line.partition(":")[2].strip()) for line in kept]
    assert names_and_values == [
        ("x-one", "1"),
        ("x-two", "spaces  within"),
        ("x-one", "again"),
        ("x-empty", ""),
        ("accept-encoding", "br, gzip"),
    ]
    assert not [line for line in lines if "x-hop" in line.lower()]
    assert not [line for line in lines if door.place.token in line]
    assert [line for line in lines if line.startswith("Host: ") and line.endswith(":2138")]


@pytest.mark.parametrize(("name", "status"), [("no-content", 204), ("not-modified", 304), ("odd-status", 599)])
async def test_answers_without_a_body_leave_the_connection_usable(door: Door, name: str, status: int) -> None:
    client = await door.client()
    async with asyncio.timeout(WITHIN_SECONDS):
        for _ in range(2):
            assert (await client.ask(door.head("GET", f"/head/{name}"))).status == status


# Bodies


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_a_body_goes_up_whole(door: Door, size: int, framing: str) -> None:
    data = pattern(size)
    if framing == "length":
        seen = await door.seen("POST", "/echo", f"Content-Length: {size}", body=data)
    else:
        seen = await door.seen("POST", "/echo", "Transfer-Encoding: chunked", body=chunked(data))
    assert (seen["length"], seen["sha256"]) == (size, hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
async def test_a_body_comes_down_whole(door: Door, size: int, framing: str) -> None:
    answer = await door.ask("GET", f"/down/{size}?{framing}")
    assert answer.status == 200
    assert answer.body == pattern(size)


@pytest.mark.timeout(600)
async def test_a_large_body_passes_whole_both_ways_and_takes_no_memory(door: Door) -> None:
    expected = hashlib.sha256()
    piece = pattern(1_000_000)
    memory = Memory(door.place.worker_pid)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(LARGE_BYTES // len(piece)):
            expected.update(piece)
            memory.look()
            yield piece

    async def down(answer: aiohttp.ClientResponse) -> str:
        digest = hashlib.sha256()
        async for data in answer.content.iter_any():
            digest.update(data)
            memory.look()
        return digest.hexdigest()

    async with aiohttp.ClientSession(headers=door.headers) as session:
        assert (await (await session.get(f"{door.url}/down/1000003")).read()) == pattern(1_000_003)
        memory.begin()
        async with session.put(f"{door.url}/echo", data=body()) as answer:
            seen = await answer.json()
        assert (seen["length"], seen["sha256"]) == (LARGE_BYTES, expected.hexdigest())
        async with session.get(f"{door.url}/down/{LARGE_BYTES}") as slow:
            async with session.get(f"{door.url}/down/{LARGE_BYTES}") as answer:
                fast = await down(answer)
            assert fast == await down(slow)  # nobody has read it for as long as the other one took
    assert memory.growth_bytes < MOST_GROWTH_BYTES


class Memory:
    """How much more a process has resident, at most, than at the beginning."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self.growth_bytes = self._begin = 0

    def _resident_bytes(self) -> int:
        lines = dict(line.split(":", 1) for line in self._status.read_text().splitlines())
        return int(lines["VmRSS"].split()[0]) << 10

    def begin(self) -> None:
        self._begin = self._resident_bytes()

    def look(self) -> None:
        self.growth_bytes = max(self.growth_bytes, self._resident_bytes() - self._begin)


async def test_trailers_pass_both_ways(door: Door) -> None:
    body = chunked(b"payload", "X-Checksum: abc", "X-Other: 1")
    seen = await door.seen("POST", "/echo", "Transfer-Encoding: chunked", "Trailer: X-Checksum", body=body)
    assert seen["trailers"] == ["X-Checksum: abc", "X-Other: 1"]

    client = await door.client()
    async with asyncio.timeout(WITHIN_SECONDS):
        client.send(door.head("GET", "/head/trailers", "TE: trailers"))
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert b"chunked" in head
        rest = await client.reader.readuntil(b"X-More: yes\r\n\r\n")
    assert rest.endswith(b"0\r\nX-Sum: 42\r\nX-More: yes\r\n\r\n")
    assert b"abc" in rest


async def test_what_the_agent_compressed_stays_compressed(door: Door) -> None:
    answer = await door.ask("GET", "/head/gzip", "Accept-Encoding: gzip")
    assert answer.header("Content-Encoding") == "gzip"
    assert answer.body == raw_agent.GZIPPED


async def test_an_answer_that_breaks_off_is_not_passed_for_a_whole_one(door: Door) -> None:
    client = await door.client()
    client.send(door.head("GET", "/head/broken"))
    async with asyncio.timeout(WITHIN_SECONDS):
        received = await client.reader.read()
    assert received.endswith(b"only")
    assert b"Content-Length: 10" in received


# The order of things


async def test_a_client_that_waits_for_100_gets_it_from_the_agent(door: Door) -> None:
    client = await door.client()
    client.send(door.head("POST", "/echo", "Expect: 100-continue", "Content-Length: 5"))
    async with asyncio.timeout(WITHIN_SECONDS):
        assert (await client.reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 100 ")
        client.send(b"hello")
        assert json.loads((await client.answer()).body)["length"] == 5


async def test_early_hints_pass_before_the_answer(door: Door) -> None:
    client = await door.client()
    client.send(door.head("GET", "/head/hints"))
    async with asyncio.timeout(WITHIN_SECONDS):
        heads = [await client.reader.readuntil(b"\r\n\r\n") for _ in range(2)]
        final = await client.answer()
    assert [head.split(b"\r\n")[0] for head in heads] == [b"HTTP/1.1 103 Early Hints"] * 2
    assert b"</a.css>" in heads[0]
    assert b"</b.css>" in heads[1]
    assert (final.status, final.body) == (200, b"ok")


async def test_an_answer_may_come_while_the_body_is_still_on_its_way(door: Door) -> None:
    client = await door.client()
    client.send(door.head("POST", "/early", "Content-Length: 50000000") + pattern(300_000))
    async with asyncio.timeout(WITHIN_SECONDS):
        answer = await client.answer()
    assert (answer.status, answer.body) == (413, b"too much")


async def test_a_client_of_http_1_0_gets_what_it_understands(door: Door) -> None:
    for path in ("/down/1000?chunked", "/down/1000"):
        client = await door.client()
        client.send(door.head("GET", path, version="1.0"))
        async with asyncio.timeout(WITHIN_SECONDS):
            head, _, body = (await client.reader.read()).partition(b"\r\n\r\n")
        assert b"Transfer-Encoding" not in head
        assert body == pattern(1000)


async def test_one_connection_carries_many_requests_also_sent_at_once(door: Door) -> None:
    client = await door.client()
    async with asyncio.timeout(WITHIN_SECONDS):
        for size in (3, 0, 70_000):
            assert (await client.ask(door.head("GET", f"/down/{size}"))).body == pattern(size)
        upload = door.head("POST", "/echo", "Content-Length: 4") + b"body"
        client.send(door.head("GET", "/down/5") + upload + door.head("GET", "/down/100000?chunked") + upload)
        assert (await client.answer()).body == pattern(5)
        assert json.loads((await client.answer()).body)["length"] == 4
        assert (await client.answer()).body == pattern(100_000)
        assert json.loads((await client.answer()).body)["length"] == 4


async def test_each_event_arrives_before_the_next_is_sent(door: Door) -> None:
    listener = await door.client()
    listener.send(door.head("GET", "/sse", "Accept: text/event-stream"))
    async with asyncio.timeout(WITHIN_SECONDS):
        assert b"text/event-stream" in await listener.reader.readuntil(b"\r\n\r\n")
        for number in range(3):
            assert b"data: %d\n\n" % number in await listener.reader.readuntil(b"\n\n\r\n")
            assert (await door.ask("POST", "/sse/next", "Content-Length: 0")).status == 204
        assert await listener.reader.readexactly(5) == b"0\r\n\r\n"


# Deadlines


async def test_an_agent_that_does_not_answer_is_a_504(door: Door) -> None:
    answer = await door.ask("GET", "/silent")
    assert answer.status == 504
    assert json.loads(answer.body)["code"] == "agent_timeout"


async def test_a_head_that_does_not_end_is_not_waited_for(door: Door) -> None:
    client = await door.client()
    client.send(door.head("GET", "/echo")[:-2])
    async with asyncio.timeout(WITHIN_SECONDS):
        assert (await client.reader.read()).startswith((b"HTTP/1.1 408 ", b""))


async def test_no_deadline_ends_a_stream_that_has_begun(door: Door) -> None:
    async with _mirror(door) as (reader, writer), asyncio.timeout(WITHIN_SECONDS):
        await door.ask("GET", "/silent")  # for as long as the deadline is
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"


# Upgrades


@contextlib.asynccontextmanager
async def _mirror(door: Door) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection that gives back every byte after a 101."""
    client = await door.client()
    client.send(door.head("GET", "/any", "Connection: Upgrade", "Upgrade: mirror"))
    async with asyncio.timeout(WITHIN_SECONDS):
        head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"mirror" in head
    yield client.reader, client.writer


@pytest.mark.parametrize("size", [1, 65_536, 5_000_000])
async def test_after_any_upgrade_bytes_pass_as_they_are(door: Door, size: int) -> None:
    data = bytes(reversed(pattern(size)))
    async with _mirror(door) as (reader, writer), asyncio.timeout(WITHIN_SECONDS), asyncio.TaskGroup() as tasks:
        received = tasks.create_task(reader.readexactly(size), name="read")
        writer.write(data)
        await writer.drain()
        assert await received == data


def frame(
    opcode: int, payload: bytes, *, fin: bool = True, reserved: int = 0, mask: bytes | None = b"\x01\x02\x03\x04"
) -> bytes:
    """One WebSocket frame, also such as no library would send (RFC 6455, section 5.2)."""
    first = (0x80 if fin else 0) | reserved << 4 | opcode
    size = len(payload)
    masked = 0x80 if mask else 0
    if size < 126:
        length = bytes([masked | size])
    elif size < 1 << 16:
        length = bytes([masked | 126]) + struct.pack("!H", size)
    else:
        length = bytes([masked | 127]) + struct.pack("!Q", size)
    if mask:
        payload = bytes(byte ^ mask[at & 3] for at, byte in enumerate(payload))
    return bytes([first]) + length + (mask or b"") + payload


def closing(code: int, reason: bytes = b"") -> bytes:
    return frame(8, struct.pack("!H", code) + reason)


FRAMES = {
    "fragments": frame(1, b"Hel", fin=False) + frame(0, b"lo", fin=False) + frame(0, b""),
    "control between fragments": frame(2, b"\0\xff", fin=False)
    + frame(9, b"ping")
    + frame(10, b"pong")
    + frame(0, b"end"),
    "a continuation of nothing": frame(0, b"orphan"),
    "a new message before the last one's end": frame(1, b"a", fin=False) + frame(1, b"b"),
    "no UTF-8": frame(1, b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited"),
    "UTF-8 cut within a character": frame(1, b"\xf0\x9f", fin=False) + frame(0, b"\x98\x80"),
    "reserved bits": b"".join(frame(1, b"x", reserved=bits) for bits in range(1, 8)),
    "reserved opcodes": b"".join(frame(opcode, b"x") for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)),
    "no mask": frame(1, b"bare", mask=None) + frame(2, b"", mask=None),
    "a mask of zeros": frame(2, b"\0" * 64, mask=b"\0\0\0\0"),
    "a long ping": frame(9, b"p" * 126),
    "a ping in fragments": frame(9, b"p", fin=False),
    "close codes": b"".join(
        closing(code, b"why") for code in (*range(999, 1017), 1100, 2999, 3000, 4000, 4999, 5000, 65535)
    ),
    "a close without a code": frame(8, b""),
    "a close of one byte": frame(8, b"\x03"),
    "frames after the close": closing(1000) + frame(1, b"still talking"),
    "a length that is longer than need be": b"\x82\xff" + struct.pack("!Q", 3) + b"\0\0\0\0abc",
    "a length with its highest bit": b"\x82\xff" + struct.pack("!Q", 1 << 63) + b"\0\0\0\0abc",
    "every length about a limit": b"".join(
        frame(2, b"L" * size) for size in (0, 1, 125, 126, 127, 128, 65_535, 65_536, 65_537)
    ),
}


@pytest.mark.parametrize("name", FRAMES)
async def test_frames_good_and_bad_pass_untouched(door: Door, name: str) -> None:
    data = FRAMES[name]
    async with _mirror(door) as (reader, writer), asyncio.timeout(WITHIN_SECONDS):
        writer.write(data)
        assert await reader.readexactly(len(data)) == data
        for at in range(min(len(data), 64)):  # and in pieces as small as they come
            writer.write(data[at : at + 1])
            await writer.drain()
            assert await reader.readexactly(1) == data[at : at + 1]


def by_websockets(door: Door) -> connect:
    """The `websockets` library, past its own idea of the address to connect to."""
    headers = {name: value for name, value in door.headers.items() if name != "Host"}
    return connect(
        f"ws://{door.headers['Host']}{door.prefix}/ws",
        host=door.place.host,
        port=door.place.port,
        additional_headers=headers,
        max_size=None,
        compression=None,
        proxy=None,
    )


async def test_websockets_talks_to_the_agent(door: Door) -> None:
    async with by_websockets(door) as socket, asyncio.timeout(WITHIN_SECONDS):
        for size in (0, 1, 125, 126, 65_535, 65_536, 2_000_000):
            await socket.send(pattern(size))
            assert await socket.recv() == pattern(size)
        await socket.send("κόσμε 😀")
        assert await socket.recv() == "κόσμε 😀"
        await socket.send([b"in ", b"three ", b"parts"])
        assert await socket.recv() == b"in three parts"
        assert await (await socket.ping(b"are you there")) >= 0


@pytest.mark.parametrize("code", [1000, 1001, 1003, 1007, 1008, 1009, 1011, 3000, 4999])
async def test_websockets_sees_the_close_that_it_sent(door: Door, code: int) -> None:
    socket: ClientConnection
    async with by_websockets(door) as socket, asyncio.timeout(WITHIN_SECONDS):
        await socket.close(code, "the reason")
        assert (socket.close_code, socket.close_reason) == (code, "the reason")
        with pytest.raises(websockets.ConnectionClosed) as closed:
            await socket.recv()
        assert closed.value.rcvd is not None
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, "the reason")


async def test_aiohttp_talks_to_the_agent(door: Door) -> None:
    async with (
        aiohttp.ClientSession(headers=door.headers) as session,
        session.ws_connect(f"{door.url}/ws", max_msg_size=0, autoping=False) as socket,
        asyncio.timeout(WITHIN_SECONDS),
    ):
        for size in (0, 125, 126, 65_535, 65_536, 2_000_000):
            await socket.send_bytes(pattern(size))
            assert await socket.receive_bytes() == pattern(size)
        await socket.send_str("κόσμε 😀")
        assert await socket.receive_str() == "κόσμε 😀"
        await socket.ping(b"ping")
        pong = await socket.receive()
        assert (pong.type, pong.data) == (aiohttp.WSMsgType.PONG, b"ping")
        await socket.close(code=4321, message=b"enough")
        assert socket.close_code == 4321
