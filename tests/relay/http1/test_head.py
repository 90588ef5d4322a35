import pytest

from elizacloud.relay.http1.head import (
    BadMessage,
    cut_request_head,
    read_answer_head,
    read_request_head,
    read_trailers,
    tokens,
)


def test_a_request_is_read_byte_for_byte() -> None:
    head = read_request_head(
        b"POST /a%2Fb/../c//;x?q=%00&r=[]#f HTTP/1.1\r\nhost: X.test:80\r\nX-Two:  a b \t\r\nX-two:\r\nX-Latin: \xe9\r\n\r\n"
    )
    assert (head.method, head.target, head.minor, head.host) == (
        b"POST",
        b"/a%2Fb/../c//;x?q=%00&r=[]#f",
        1,
        b"X.test:80",
    )
    assert head.fields == [
        (b"host", b"host", b"X.test:80"),
        (b"x-two", b"X-Two", b"a b"),
        (b"x-two", b"X-two", b""),
        (b"x-latin", b"X-Latin", b"\xe9"),
    ]


@pytest.mark.parametrize(
    "method", [b"GET", b"HEAD", b"QUERY", b"BREW", b"get", b"M-SEARCH", b"SETUP", b"X!#$%&'*+.^_`|~1"]
)
def test_any_token_is_a_method(method: bytes) -> None:
    assert read_request_head(method + b" / HTTP/1.1\r\nHost: x\r\n\r\n").method == method


@pytest.mark.parametrize(
    "line",
    [
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET /\x01 HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /\xe9 HTTP/1.1",
        b"GET / http/1.1",
        b"GET / HTTP/1",
        b"GET / HTTP/11",
        b"GET / ICE/1.0",
        b"GET /",
        b"G(T / HTTP/1.1",
        b"",
        b"GET",
        b"A" * 65 + b" / HTTP/1.1",
        b"GET nothing HTTP/1.1",
        b"GET http://x\\y@z/ HTTP/1.1",
    ],
)
def test_a_malformed_request_line_is_refused(line: bytes) -> None:
    with pytest.raises(BadMessage) as refused:
        read_request_head(line + b"\r\nHost: x\r\n\r\n")
    assert refused.value.status == 400


@pytest.mark.parametrize("version", [b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/3.0"])
def test_other_versions_are_refused_as_such(version: bytes) -> None:
    with pytest.raises(BadMessage) as refused:
        read_request_head(b"GET / " + version + b"\r\nHost: x\r\n\r\n")
    assert refused.value.status == 505


BAD_LINES = [
    b"A: b\nC: d",
    b"A: b\rC: d",
    b"A: b\r\n folded",
    b" A: b",
    b"A\x00: b",
    b"A: b\x00c",
    b"A: b\x01",
    b"A: b\x7f",
    b"A : b",
    b": b",
    b"no colon",
    b"A b: c",
    b"A\xe9: b",
    b"Content-Length: 3\r\nContent-Length: 3",
    b"Content-Length: 3, 3",
    b"Content-Length: +3",
    b"Content-Length: -3",
    b"Content-Length: 0x3",
    b"Content-Length: ",
    b"Content-Length: 99999999999999999999",
    b"Content-Length: 3\r\nTransfer-Encoding: chunked",
    b"Transfer-Encoding: chunked\r\nContent-Length: 3",
    b"Transfer-Encoding: chunked, gzip",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: \x0bchunked",
]


@pytest.mark.parametrize("lines", BAD_LINES)
def test_malformed_headers_are_refused(lines: bytes) -> None:
    with pytest.raises(BadMessage):
        read_request_head(b"POST / HTTP/1.1\r\nHost: x\r\n" + lines + b"\r\n\r\n")


@pytest.mark.parametrize(
    "hosts",
    [
        b"",
        b"Host: a\r\nHost: a\r\n",
        b"Host: a b\r\n",
        b"Host: a/b\r\n",
        b"Host: a@b\r\n",
        b"Host:\r\n",
        b"Host: a:b\r\n",
    ],
)
def test_exactly_one_valid_host_is_needed(hosts: bytes) -> None:
    with pytest.raises(BadMessage, match="Host"):
        read_request_head(b"GET / HTTP/1.1\r\n" + hosts + b"\r\n")


@pytest.mark.parametrize("host", [b"a", b"a.b-c:80", b"[::1]", b"[::1]:80", b"127.0.0.1", b"a_b~c.", b"a:"])
def test_valid_hosts_are_kept(host: bytes) -> None:
    assert read_request_head(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n").host == host


def test_http_1_0_needs_no_host() -> None:
    head = read_request_head(b"GET / HTTP/1.0\r\n\r\n")
    assert (head.minor, head.host) == (0, b"")


def test_an_upgrade_is_only_a_head() -> None:
    head = read_request_head(
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n"
    )
    assert tokens(head.fields, b"connection") == {b"keep-alive", b"upgrade"}


@pytest.mark.parametrize(
    ("raw", "status", "reason"),
    [
        (b"HTTP/1.1 200 OK\r\nA: b\r\n\r\n", 200, b"OK"),
        (b"HTTP/1.1 200\r\n\r\n", 200, b""),
        (b"HTTP/1.0 404 \r\n\r\n", 404, b""),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 101, b"Switching Protocols"),
        (b"HTTP/1.1 101 Bare\r\n\r\n", 101, b"Bare"),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 103, b"Early Hints"),
        (b"HTTP/1.1 999 Odd\r\n\r\n", 999, b"Odd"),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", 304, b"Not Modified"),
    ],
)
def test_answers_are_read(raw: bytes, status: int, reason: bytes) -> None:
    head = read_answer_head(raw)
    assert (head.status, head.reason) == (status, reason)


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 099 No\r\n\r\n",
        b"HTTP/1.1 2000 No\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"ICY 200 OK\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1 200 O\x00K\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\x00\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\n\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
def test_malformed_answers_are_refused(raw: bytes) -> None:
    with pytest.raises(BadMessage):
        read_answer_head(raw)


def test_trailers_are_read_as_headers_are() -> None:
    assert read_trailers(b"X-Sum: 1\r\n\r\n") == [(b"x-sum", b"X-Sum", b"1")]
    with pytest.raises(BadMessage):
        read_trailers(b"X-Sum: 1\n\r\n\r\n")


def test_connect_is_refused() -> None:
    with pytest.raises(BadMessage) as refused:
        read_request_head(b"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n")
    assert refused.value.status == 405


@pytest.mark.parametrize("before", [b"", b"\r\n"])
def test_a_head_is_cut_from_what_follows_it(before: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    assert cut_request_head(before + head + b"GET /two", 0) == (head, b"GET /two")
    for end in range(1, len(before + head)):
        begun = (before + head)[:end]
        assert cut_request_head(begun, 0) == (b"", begun)
        assert cut_request_head(before + head, end) == (head, b"")


def test_one_empty_line_before_a_request_is_forgiven() -> None:
    head, _ = cut_request_head(b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 0)
    with pytest.raises(BadMessage):
        read_request_head(head)
