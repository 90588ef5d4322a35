import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from elizacloud.relay.http1.framing import Framing
from elizacloud.relay.http1.head import AnswerHead, Field
from elizacloud.relay.reading import LONG_READ_BYTES, READ_BYTES, SHORT_READ_BYTES
from elizacloud.relay.turns import BULK_BYTES
from elizacloud.relay.upstream import UpstreamConnection


class Took:
    """A taker that keeps what it was given. With `busy`, what comes waits until the test calls what is in `waiting`."""

    def __init__(self) -> None:
        self.busy = False
        self.by_itself = False
        self.waiting: asyncio.Queue[Callable[[int], None]] = asyncio.Queue()
        self.status = 0
        self.body = b""
        self.calls: list[str] = []
        self.over = asyncio.Event()

    def now(self, size: int, take: Callable[[int], None]) -> int:
        if self.busy:
            self.waiting.put_nowait(take)
        return 0 if self.busy else size

    def alone(self) -> bool:
        return self.by_itself

    def informational(self, head: AnswerHead) -> None:
        self.calls.append(f"informational {head.status}")

    def answer(self, head: AnswerHead, framing: Framing, data: bytes) -> None:
        self.status = head.status
        self.body += data

    def answer_data(self, data: bytes) -> None:
        self.body += data

    def answer_end(self, trailers: list[Field]) -> None:
        self._end("end")

    def upgraded(self, head: AnswerHead, data: bytes) -> None:
        self.calls.append("upgraded")
        self.body += data

    def piped(self, data: bytes) -> None:
        self.body += data

    def upstream_lost(self, reason: str) -> None:
        self._end(f"lost: {reason}")

    def answer_late(self) -> None:
        self._end("late")

    def upstream_writable(self, writable: bool) -> None:
        self.calls.append(f"writable {writable}")

    def upstream_full(self) -> None:
        self.calls.append("full")

    def _end(self, call: str) -> None:
        self.calls.append(call)
        self.over.set()


@pytest.fixture
async def pair() -> AsyncIterator[tuple[UpstreamConnection, socket.socket]]:
    """A connection, and the upstream's end of it as a plain blocking socket."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_unix_connection(UpstreamConnection, sock=ours)
    yield connection, theirs
    connection.abort()
    theirs.close()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


Pair = tuple[UpstreamConnection, socket.socket]


async def begun(pair: Pair, method: bytes = b"GET", *, upgrade: bool = False) -> Took:
    took = Took()
    pair[0].begin(took, method, upgrade=upgrade)
    return took


async def over(took: Took) -> str:
    async with asyncio.timeout(20):
        await took.over.wait()
    return took.calls[-1]


async def next_turn(took: Took) -> Callable[[int], None]:
    """What is to be called when it is its turn."""
    async with asyncio.timeout(20):
        return await took.waiting.get()


async def test_an_answer_in_the_socket_survives_a_write_that_fails(pair: Pair) -> None:
    """The upstream answered and closed with our upload unread; our next write gets EPIPE before we could read."""
    connection, upstream = pair
    took = await begun(pair, b"POST")
    upstream.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
    upstream.close()
    connection.write(b"x" * 100_000)
    assert await over(took) == "end"
    assert (took.status, took.body) == (413, b"big")


async def test_two_answers_in_one_read_make_the_connection_unusable(pair: Pair) -> None:
    took = await begun(pair)
    pair[1].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")
    assert await over(took) == "end"
    assert pair[0].keep_alive is False


@pytest.mark.parametrize(
    ("head", "usable"),
    [
        (b"HTTP/1.1 200 OK\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x, close\r\n", False),
        (b"HTTP/1.0 200 OK\r\n", False),
        (b"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\n", True),
    ],
)
async def test_whether_it_can_be_used_again(pair: Pair, head: bytes, usable: bool) -> None:
    took = await begun(pair)
    pair[1].sendall(head + b"Content-Length: 0\r\n\r\n")
    assert await over(took) == "end"
    assert pair[0].keep_alive is usable


async def test_what_the_upstream_says_of_idle_connections_is_kept(pair: Pair) -> None:
    took = await begun(pair)
    pair[1].sendall(b"HTTP/1.1 200 OK\r\nKeep-Alive: timeout=5, max=100\r\nContent-Length: 0\r\n\r\n")
    await over(took)
    assert pair[0].idle_within == 5.0


async def test_an_answer_without_length_ends_with_the_connection(pair: Pair) -> None:
    took = await begun(pair)
    pair[1].sendall(b"HTTP/1.1 200 OK\r\n\r\nall of")
    pair[1].sendall(b" it")
    pair[1].close()
    assert await over(took) == "end"
    assert took.body == b"all of it"


async def test_an_answer_that_stops_before_its_length_is_lost(pair: Pair) -> None:
    took = await begun(pair)
    pair[1].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    pair[1].close()
    assert (await over(took)).startswith("lost")


async def test_bytes_on_an_idle_connection_end_it(pair: Pair) -> None:
    connection, upstream = pair
    upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert await asyncio.to_thread(upstream.recv, 1) == b""
    assert connection.closed


async def test_a_switch_that_was_asked_for_makes_it_a_pipe(pair: Pair) -> None:
    took = await begun(pair, upgrade=True)
    pair[1].sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\nHTTP")
    pair[1].sendall(b"/1.1 no more heads\r\n\r\n")
    pair[1].close()
    assert (await over(took)).startswith("lost")
    assert (took.calls[0], took.body) == ("upgraded", b"HTTP/1.1 no more heads\r\n\r\n")


async def test_no_answer_in_time(pair: Pair) -> None:
    took = await begun(pair)
    pair[0].expect_answer(0.01)
    assert await over(took) == "late"
    assert pair[0].closed


async def test_informational_answers_do_not_stop_the_clock(pair: Pair) -> None:
    took = await begun(pair)
    pair[1].sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    async with asyncio.timeout(20):
        while not took.calls:
            await asyncio.sleep(0)
    pair[0].expect_answer(0.01)
    assert await over(took) == "late"


async def test_an_upstream_that_takes_nothing_is_full_and_one_that_takes_some_is_not(pair: Pair) -> None:
    connection, upstream = pair
    took = await begun(pair)
    unsent = connection._transport.get_write_buffer_size
    connection.write(bytes(10_000_000))
    async with asyncio.timeout(20):
        while unsent() == 10_000_000:
            await asyncio.sleep(0)
        connection.expect_room(60)
        left = unsent()
        upstream.recv(1 << 20)
        while unsent() == left:
            await asyncio.sleep(0)
    connection._room._look()
    assert "full" not in took.calls
    connection._room._look()
    assert took.calls[-1] == "full"


async def test_a_closed_connection_does_not_wait_for_ever_for_what_does_not_leave(pair: Pair) -> None:
    connection, _ = pair
    lost = asyncio.Event()
    connection.on_lost = lambda _: lost.set()
    await begun(pair)
    connection.write(bytes(10_000_000))
    connection.expect_room(0.01)
    connection.close()
    async with asyncio.timeout(20):
        await lost.wait()


async def test_killed_means_told(pair: Pair) -> None:
    took = await begun(pair)
    pair[0].write(b"x" * 10_000_000)
    pair[0].kill("the peer moved")
    assert took.calls[-1] == "lost: the peer moved"


async def test_what_comes_waits_for_the_takers_turn(pair: Pair) -> None:
    took = await begun(pair)
    took.busy = True
    pair[1].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    take = await next_turn(took)
    assert (took.status, took.calls) == (0, [])
    take(1000)
    assert (took.status, took.body, took.calls) == (200, b"ok", ["end"])


async def test_so_much_is_taken_at_a_time_as_its_turn_allows(pair: Pair) -> None:
    took = await begun(pair)
    took.busy = True
    pair[1].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nall of")
    bodies = []
    while not took.over.is_set():
        take = await next_turn(took)
        take(20)
        bodies.append(took.body)
    assert bodies == [b"", b"al", b"all of"]


async def test_what_follows_an_answer_in_another_turn_ends_the_connection(pair: Pair) -> None:
    connection, upstream = pair
    took = await begun(pair)
    took.busy = True
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    upstream.sendall(answer + b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    take = await next_turn(took)
    take(len(answer))
    assert took.calls == ["end"]
    assert connection.closed


async def test_an_answer_that_waits_is_not_lost_with_its_connection(pair: Pair) -> None:
    took = await begun(pair)
    took.busy = True
    pair[1].sendall(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    take = await next_turn(took)
    pair[1].close()
    assert await over(took) == "end"
    assert took.body == b"all of it"
    take(1000)  # its turn comes later, and finds nothing
    assert took.calls == ["end"]


async def test_nothing_that_waits_is_taken_after_the_taker_let_go(pair: Pair) -> None:
    took = await begun(pair)
    took.busy = True
    pair[1].sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
    take = await next_turn(took)
    pair[0].abort()
    take(1000)
    assert (took.status, took.calls) == (0, [])


async def test_of_much_that_waits_no_more_is_read(pair: Pair) -> None:
    connection, upstream = pair
    took = await begun(pair)
    took.busy = True
    size = 8 << 20
    sending = asyncio.create_task(
        asyncio.to_thread(upstream.sendall, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size))
    )
    async with asyncio.timeout(20):
        held = 0
        while held < BULK_BYTES:
            await asyncio.sleep(0)
            held = len(connection._came)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(connection._came) == held
    took.busy = False
    took.waiting.get_nowait()(held)
    assert await over(took) == "end"
    await sending
    assert len(took.body) == size


async def test_no_read_is_longer_than_a_moment(pair: Pair) -> None:
    took = await begun(pair)
    took.busy = True
    sending = asyncio.create_task(asyncio.to_thread(pair[1].sendall, bytes(4 * READ_BYTES)))
    take = await next_turn(took)
    assert len(pair[0]._came) <= READ_BYTES
    pair[0].abort()
    take(1)
    with contextlib.suppress(OSError):
        await sending


async def test_a_long_answer_is_read_in_long_pieces_while_its_owner_is_alone(pair: Pair) -> None:
    connection, upstream = pair
    took = await begun(pair)
    took.by_itself = True
    assert len(connection.get_buffer(READ_BYTES)) == READ_BYTES
    upstream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
    async with asyncio.timeout(20):
        while not took.status:
            await asyncio.sleep(0)
    assert len(connection.get_buffer(READ_BYTES)) == LONG_READ_BYTES
    took.by_itself = False
    assert len(connection.get_buffer(READ_BYTES)) == SHORT_READ_BYTES
    took.by_itself = True
    upstream.sendall(b"k")
    assert await over(took) == "end"
    assert len(connection.get_buffer(READ_BYTES)) == READ_BYTES
