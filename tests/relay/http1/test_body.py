import httptools
import pytest
from hypothesis import given
from hypothesis import strategies as st

from elizacloud.relay.http1.body import ChunkedBody, EndlessBody, SizedBody, body_reader, chunk
from elizacloud.relay.http1.framing import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, Kind
from elizacloud.relay.http1.head import BadMessage


def read(raw: bytes, step: int | None = None) -> tuple[bytes, bytes, ChunkedBody]:
    """Payload, what was left after the end, and the reader."""
    body = ChunkedBody()
    payload = b""
    for at in range(0, len(raw), step or len(raw)):
        assert not body.done
        part, rest = body.feed(raw[at : at + (step or len(raw))])
        payload += part
        if body.done:
            return payload, rest + raw[at + (step or len(raw)) :], body
    return payload, b"", body


WHOLE = b'5\r\nhello\r\n1;ext=1;q="x"\r\n \r\n000A\r\n0123456789\r\n0\r\nX-Sum: 1\r\nY: 2\r\n\r\nGET /'


@pytest.mark.parametrize("step", [None, 1, 2, 3, 7])
def test_chunks_are_read_however_they_come(step: int | None) -> None:
    payload, rest, body = read(WHOLE, step)
    assert (payload, rest, body.done) == (b"hello 0123456789", b"GET /", True)
    assert body.trailers == [(b"x-sum", b"X-Sum", b"1"), (b"y", b"Y", b"2")]


BAD_CHUNKS = [
    b"+3\r\nabc\r\n0\r\n\r\n",
    b"-3\r\nabc\r\n0\r\n\r\n",
    b"0x3\r\nabc\r\n0\r\n\r\n",
    b" 3\r\nabc\r\n0\r\n\r\n",
    b"3 \r\nabc\r\n0\r\n\r\n",
    b"3\nabc\r\n0\r\n\r\n",
    b"3;a\nabc\r\n0\r\n\r\n",
    b"3;a\x00\r\nabc\r\n0\r\n\r\n",
    b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    b"\r\nabc\r\n0\r\n\r\n",
    b";a\r\nabc\r\n0\r\n\r\n",
    b"g\r\nabc\r\n0\r\n\r\n",
    b"3\r\nabcd\r\n0\r\n\r\n",
    b"3\r\nabc\n0\r\n\r\n",
    b"3\r\nabc\rX0\r\n\r\n",
    b"ffffffffffffffff\r\nabc\r\n",
    b"3;" + b"a" * 300 + b"\r\nabc\r\n0\r\n\r\n",
    b"0\r\nbad trailer\r\n\r\n",
    b"0\r\nA: b\n\r\n\r\n",
    b"0\r\n A: b\r\n\r\n",
]


@pytest.mark.parametrize("raw", BAD_CHUNKS)
@pytest.mark.parametrize("step", [None, 1])
def test_malformed_chunks_are_refused(raw: bytes, step: int | None) -> None:
    with pytest.raises(BadMessage):
        read(raw, step)


def test_trailers_without_end_are_refused() -> None:
    body = ChunkedBody()
    body.feed(b"0\r\nX: ")
    with pytest.raises(BadMessage) as refused:
        for _ in range(70):
            body.feed(b"a" * 1024)
    assert refused.value.status == 431


def test_a_sized_body_ends_where_it_says() -> None:
    body = SizedBody(5)
    assert body.feed(b"he") == (b"he", b"")
    assert not body.done
    assert body.feed(b"lloGET /") == (b"llo", b"GET /")
    assert body.done


def test_an_endless_body_takes_all() -> None:
    body = EndlessBody()
    assert body.feed(b"abc") == (b"abc", b"")
    assert not body.done


def test_each_framing_has_its_reader() -> None:
    assert isinstance(body_reader(CHUNKED), ChunkedBody)
    assert isinstance(body_reader(UNTIL_CLOSE), EndlessBody)
    assert isinstance(body_reader(Framing(Kind.LENGTH, 3)), SizedBody)
    assert body_reader(NO_BODY).done


@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6), st.integers(1, 64))
def test_what_was_chunked_comes_back(pieces: list[bytes], step: int) -> None:
    raw = b"".join(map(chunk, pieces)) + b"0\r\n\r\nNEXT"
    payload, rest, body = read(raw, step)
    assert (payload, rest, body.done) == (b"".join(pieces), b"NEXT", True)


class Collected:
    def __init__(self) -> None:
        self.payload = b""
        self.done = False

    def on_body(self, data: bytes) -> None:
        self.payload += data

    def on_message_complete(self) -> None:
        self.done = True


def llhttp_reads(raw: bytes) -> bytes | None:
    """The payload of exactly this chunked body, by another parser; None when it does not accept it as a whole."""
    collected = Collected()
    try:
        httptools.HttpRequestParser(collected).feed_data(
            b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + raw
        )
    except (httptools.HttpParserError, httptools.HttpParserUpgrade):
        return None
    return collected.payload if collected.done else None


CHUNKY = st.lists(
    st.sampled_from(
        [b"0", b"3", b"a", b"1", b"\r\n", b"\r", b"\n", b"abc", b"A: b", b";x", b" ", b"\t", b"0\r\n\r\n", b"\x00"]
    ),
    max_size=14,
).map(b"".join)


@given(CHUNKY, st.integers(1, 9))
def test_what_we_accept_llhttp_reads_alike(raw: bytes, step: int) -> None:
    try:
        payload, rest, body = read(raw, step) if raw else (b"", b"", ChunkedBody())
    except BadMessage:
        return
    if body.done:
        assert llhttp_reads(raw[: len(raw) - len(rest)]) == payload
