import pytest

from elizacloud.relay.headers.framed import framed
from elizacloud.relay.http1.framing import CHUNKED, NO_BODY, UNTIL_CLOSE, Framing, Kind
from elizacloud.relay.http1.head import AnswerHead, read_answer_head

FIVE = Framing(Kind.LENGTH, 5)


def head(status: int = 200, fields: bytes = b"") -> AnswerHead:
    return read_answer_head(b"HTTP/1.1 %d Well\r\n%b\r\n" % (status, fields))


@pytest.mark.parametrize(
    ("framing", "minor", "keep_alive", "lines", "chunked", "kept"),
    [
        (FIVE, 1, True, b"Content-Length: 5\r\n", False, True),
        (FIVE, 1, False, b"Content-Length: 5\r\nConnection: close\r\n", False, False),
        (FIVE, 0, True, b"Content-Length: 5\r\nConnection: keep-alive\r\n", False, True),
        (CHUNKED, 1, True, b"Transfer-Encoding: chunked\r\n", True, True),
        (UNTIL_CLOSE, 1, True, b"Transfer-Encoding: chunked\r\n", True, True),
        (CHUNKED, 0, True, b"Connection: close\r\n", False, False),
        (UNTIL_CLOSE, 0, False, b"Connection: close\r\n", False, False),
    ],
)
def test_an_answer_says_where_it_ends(
    framing: Framing, minor: int, keep_alive: bool, lines: bytes, chunked: bool, kept: bool
) -> None:
    answer = head()
    for _ in range(2):
        assert framed(answer, framing, minor, keep_alive) == (b"HTTP/1.1 200 Well\r\n" + lines, chunked, kept)


@pytest.mark.parametrize(
    ("status", "length"), [(200, b"Content-Length: 7\r\n"), (304, b"Content-Length: 7\r\n"), (204, b"")]
)
def test_without_a_body_the_length_is_that_of_what_is_not_sent(status: int, length: bytes) -> None:
    answer = head(status, b"Content-Length: 7\r\n")
    assert framed(answer, NO_BODY, 1, True).lines == b"HTTP/1.1 %d Well\r\n%b" % (status, length)


def test_one_head_answers_clients_of_every_kind() -> None:
    answer = head(200, b"Content-Length: 7\r\n")
    assert framed(answer, Framing(Kind.LENGTH, 7), 1, False).keep_alive is False
    assert framed(answer, Framing(Kind.LENGTH, 7), 1, True).keep_alive is True
    assert framed(answer, NO_BODY, 0, True).lines.endswith(b"Connection: keep-alive\r\n")
