import pytest

from elizacloud.relay.http1.framing import (
    CHUNKED,
    NO_BODY,
    UNTIL_CLOSE,
    Framing,
    Kind,
    answer_framing,
    request_framing,
)
from elizacloud.relay.http1.head import AnswerHead, BadMessage, Field, RequestHead


def fields(*pairs: tuple[str, str]) -> list[Field]:
    return [(name.lower().encode(), name.encode(), value.encode()) for name, value in pairs]


def request_of(*pairs: tuple[str, str], minor: int = 1) -> RequestHead:
    return RequestHead(b"POST", b"/", minor, fields(*pairs), b"x")


def answer_of(*pairs: tuple[str, str], status: int = 200, minor: int = 1) -> AnswerHead:
    return AnswerHead(status, b"", minor, fields(*pairs))


def test_a_request_has_the_body_that_it_declares() -> None:
    assert request_framing(request_of()) == NO_BODY
    assert request_framing(request_of(("Content-Length", "12"))) == Framing(Kind.LENGTH, 12)
    assert request_framing(request_of(("Content-Length", "0"))) == Framing(Kind.LENGTH, 0)
    assert request_framing(request_of(("Transfer-Encoding", "Chunked"))) == CHUNKED


@pytest.mark.parametrize(
    "pairs",
    [
        [("Content-Length", "3"), ("Content-Length", "3")],
        [("Content-Length", "3"), ("Transfer-Encoding", "chunked")],
        [("Transfer-Encoding", "chunked"), ("Content-Length", "3")],
        [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "chunked")],
        [("Content-Length", "+3")],
        [("Content-Length", "3,3")],
        [("Content-Length", "")],
        [("Content-Length", "9" * 19)],
        [("Content-Length", "\N{SUPERSCRIPT TWO}")],
    ],
)
def test_an_unclear_length_is_refused(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(BadMessage) as refused:
        request_framing(request_of(*pairs))
    assert refused.value.status == 400
    with pytest.raises(BadMessage):
        answer_framing(answer_of(*pairs), b"GET")


@pytest.mark.parametrize("coding", ["gzip, chunked", "identity", "xchunked", "chunked\x0b", "", "chunked;x"])
def test_other_transfer_codings_are_refused(coding: str) -> None:
    with pytest.raises(BadMessage) as refused:
        request_framing(request_of(("Transfer-Encoding", coding)))
    assert refused.value.status == 501


def test_http_1_0_cannot_be_chunked() -> None:
    with pytest.raises(BadMessage):
        request_framing(request_of(("Transfer-Encoding", "chunked"), minor=0))
    with pytest.raises(BadMessage):
        answer_framing(answer_of(("Transfer-Encoding", "chunked"), minor=0), b"GET")


@pytest.mark.parametrize(("method", "status"), [(b"HEAD", 200), (b"GET", 204), (b"GET", 304), (b"GET", 103)])
def test_some_answers_have_no_body_whatever_they_declare(method: bytes, status: int) -> None:
    assert answer_framing(answer_of(("Content-Length", "5"), status=status), method) == NO_BODY


def test_an_answer_without_a_length_lasts_until_the_end() -> None:
    assert answer_framing(answer_of(), b"GET") == UNTIL_CLOSE
    assert answer_framing(answer_of(("Content-Length", "5")), b"GET") == Framing(Kind.LENGTH, 5)
