import pytest

from elizacloud.relay.headers import hygiene
from elizacloud.relay.http1.framing import CHUNKED, NO_BODY, Framing, Kind
from elizacloud.relay.http1.head import AnswerHead, Field, RequestHead


def fields(*lines: str) -> list[Field]:
    pairs = [line.partition(": ") for line in lines]
    return [(name.lower().encode(), name.encode(), value.encode("latin-1")) for name, _, value in pairs]


def to_agent(*lines: str, by_path: bool = True, framing: Framing = NO_BODY, upgrade: bytes | None = None) -> list[str]:
    head = RequestHead(b"GET", b"/x", 1, fields(*lines), b"cloud.test")
    raw = hygiene.agent_request(
        head,
        target=b"/x",
        framing=framing,
        upgrade=upgrade,
        host_line=b"Host: 100.64.0.7:2138\r\n",
        authorization_line=b"Authorization: Bearer agents\r\n",
        forwarded_lines=b"X-Forwarded-For: 192.0.2.1\r\n",
        by_path=by_path,
    )
    assert raw.endswith(b"\r\n\r\n")
    return raw.decode("latin-1").split("\r\n")[:-2]


OURS = ["GET /x HTTP/1.1", "Host: 100.64.0.7:2138", "Authorization: Bearer agents", "X-Forwarded-For: 192.0.2.1"]


def test_end_to_end_headers_pass_as_sent() -> None:
    sent = [
        "Accept: */*",
        "X-Milady-Client-Id: 1",
        "x-odd-CASE: v",
        "Origin: https://a.test",
        "Expect: 100-continue",
        "A: 1",
        "A: 2",
    ]
    assert [line for line in to_agent(*sent) if line not in OURS] == sent


@pytest.mark.parametrize(
    "line",
    [
        "Host: evil.test",
        "Authorization: Bearer ec_clients",
        "X-Forwarded-For: 1.2.3.4",
        "X-Forwarded-Host: evil",
        "X-Forwarded-User: root",
        "X-Forwarded: for=1.2.3.4",
        "x_forwarded_for: 1.2.3.4",
        "X-Forwarded_For: 1.2.3.4",
        "Forwarded: for=1.2.3.4",
        "X-Real-IP: 1.2.3.4",
        "X_Real_Ip: 1.2.3.4",
        "True-Client-IP: 1.2.3.4",
        "X-Original-URL: /admin",
        "X-Rewrite-URL: /admin",
        "Tailscale-User-Login: root@x",
        "Remote-User: root",
        "Remote-Groups: admin",
        "X-Authenticated-User: root",
        "X_Authenticated_Userid: root",
        "Cf-Access-Jwt-Assertion: x",
        "X-Goog-Authenticated-User-Email: root@x",
        "Client-Cert: x",
        "X-Auth-Request-Email: root@x",
        "Elizacloud-Owner: other",
        "Elizacloud-Error: x",
        "Proxy: http://evil",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic x",
        "Transfer-Encoding: chunked",
        "Content-Length: 5",
        "Content_Length: 5",
        "Transfer_Encoding: chunked",
        "Upgrade: h2c",
        "HTTP2-Settings: x",
        "Cookie: session=1",
        "X-Api-Key: ec_clients_secret",
        "X-Eliza-Auth: x",
    ],
)
def test_what_must_not_reach_an_agent_does_not(line: str) -> None:
    assert to_agent(line) == OURS


def test_what_connection_names_stops_here() -> None:
    assert (
        to_agent("Connection: close, X-Secret , x-other", "X-Secret: 1", "X-Other: 2", "Connection: keep-alive") == OURS
    )


def test_connection_cannot_name_our_headers_away() -> None:
    assert to_agent("Connection: X-Forwarded-For, Authorization, Host") == OURS


def test_the_clients_own_header_for_the_agent_becomes_its_authorization() -> None:
    lines = to_agent("Elizacloud-Agent-Authorization: Basic abc", "Authorization: Bearer ec_clients")
    assert lines == [OURS[0], OURS[1], "Authorization: Basic abc", OURS[3]]


def test_a_key_of_the_agents_own_passes() -> None:
    assert "X-Api-Key: sk-123" in to_agent("X-Api-Key: sk-123")


def test_an_agents_own_host_gets_cookies_but_not_ours() -> None:
    lines = to_agent("Cookie: a=1; __Host-elizacloud-session=x; elizacloud_ticket=y; b=2", by_path=False)
    assert "Cookie: a=1; b=2" in lines
    assert to_agent("Cookie: __Host-elizacloud=x", by_path=False) == OURS


def test_the_body_is_framed_anew() -> None:
    assert to_agent(framing=CHUNKED)[-1] == "Transfer-Encoding: chunked"
    assert to_agent(framing=Framing(Kind.LENGTH, 0))[-1] == "Content-Length: 0"


def test_a_wish_for_trailers_passes() -> None:
    assert to_agent("TE: trailers, deflate")[-2:] == ["TE: trailers", "Connection: TE"]


@pytest.mark.parametrize(
    ("lines", "upgrade"),
    [
        (["Connection: Upgrade", "Upgrade: websocket"], b"websocket"),
        (["Connection: keep-alive, upgrade", "Upgrade: ts-dial"], b"ts-dial"),
        (["Connection: keep-alive", "Upgrade: websocket"], None),
        (["Connection: Upgrade"], None),
        (["Connection: Upgrade", "Upgrade: h2c"], None),
        (["Connection: Upgrade, HTTP2-Settings", "Upgrade: H2C", "HTTP2-Settings: x"], None),
        (["Connection: Upgrade", "Upgrade: websocket, h2c"], None),
        (["Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"], None),
        (["Connection: Upgrade", "Upgrade: TLS/1.0"], None),
    ],
)
def test_only_one_clean_upgrade_passes(lines: list[str], upgrade: bytes | None) -> None:
    head = RequestHead(b"GET", b"/", 1, fields(*lines), b"x")
    assert hygiene.upgrade_of(head, NO_BODY) == upgrade


def test_a_request_with_a_body_is_not_upgraded() -> None:
    head = RequestHead(b"POST", b"/", 1, fields("Connection: Upgrade", "Upgrade: websocket"), b"x")
    assert hygiene.upgrade_of(head, CHUNKED) is None
    assert hygiene.upgrade_of(head, Framing(Kind.LENGTH, 1)) is None
    assert hygiene.upgrade_of(head, Framing(Kind.LENGTH, 0)) == b"websocket"


def test_an_upgrade_is_asked_for_in_our_words() -> None:
    lines = to_agent("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Key: k", upgrade=b"websocket")
    assert lines[-2:] == ["Connection: Upgrade", "Upgrade: websocket"]
    assert "Sec-WebSocket-Key: k" in lines


def from_agent(*lines: str, by_path: bool = True) -> list[str]:
    """What passes, beside the line for caches that each answer gets."""
    passed = hygiene.agent_answer_by_path if by_path else hygiene.agent_answer_by_host
    came = passed(AnswerHead(200, b"OK", 1, fields(*lines))).decode("latin-1").split("\r\n")[:-1]
    came.remove("Cache-Control: private")
    return came


SANDBOX = ["Content-Security-Policy: sandbox", "X-Content-Type-Options: nosniff"]


def test_the_agents_own_headers_pass() -> None:
    sent = ["Content-Type: text/html", "ETag: x", "Content-Encoding: gzip", "X-Accel-Buffering: no", "Vary: Accept"]
    assert from_agent(*sent) == [*sent, *SANDBOX]
    assert from_agent(*sent, by_path=False) == sent


@pytest.mark.parametrize(
    "line",
    [
        "Access-Control-Allow-Origin: *",
        "Access-Control-Allow-Credentials: true",
        "Elizacloud-Error: agent_unroutable",
        'Alt-Svc: h3=":443"',
        "Strict-Transport-Security: max-age=1",
        "Public-Key-Pins: x",
        'Clear-Site-Data: "cookies"',
        "X-Accel-Redirect: /internal",
        "X-Sendfile: /etc/passwd",
        "Location: //elsewhere",
        "Connection: close",
        "Keep-Alive: timeout=5",
        "Transfer-Encoding: chunked",
        "Content-Length: 5",
        "Upgrade: h2c",
    ],
)
def test_some_headers_pass_on_no_front(line: str) -> None:
    assert from_agent(line) == SANDBOX
    assert from_agent(line, by_path=False) == []


@pytest.mark.parametrize(
    "line",
    [
        "Set-Cookie: a=1",
        "Service-Worker-Allowed: /",
        "X-Content-Type-Options: x",
        "Report-To: {}",
    ],
)
def test_nothing_for_the_apis_origin_passes_on_the_path_front(line: str) -> None:
    assert from_agent(line) == SANDBOX
    assert from_agent(line, by_path=False) == [line]


def test_an_agents_stricter_policy_stays_beside_the_sandbox() -> None:
    assert from_agent("Content-Security-Policy: default-src 'none'") == [
        "Content-Security-Policy: default-src 'none'",
        *SANDBOX,
    ]


@pytest.mark.parametrize(
    ("cookie", "passes"),
    [
        ("a=1; Path=/", True),
        ("a=1; Domain=agents.test", False),
        ("a=1;domain = .agents.test; Path=/", False),
        ("a=1; Domain=", True),
        ("__Host-elizacloud-session=x", False),
        ("elizacloud=x", False),
        ("=elizacloud=x", False),
        (" = __Host-elizacloud=x", False),
        ("domain=x", True),
    ],
)
def test_an_agent_sets_cookies_for_its_own_host_only(cookie: str, passes: bool) -> None:
    assert from_agent(f"Set-Cookie: {cookie}", by_path=False) == ([f"Set-Cookie: {cookie}"] if passes else [])


def test_trailers_carry_nothing_that_frames_routes_or_authorises() -> None:
    forbidden = [
        "Content-Length: 1",
        "Transfer-Encoding: chunked",
        "Host: x",
        "Authorization: x",
        "Cookie: a",
        "Trailer: x",
        "X-Forwarded-For: 1",
    ]
    assert (
        hygiene.trailer_lines(fields("X-Sum: 1", *forbidden, "grpc-status: 0"), to_agent=True)
        == b"X-Sum: 1\r\ngrpc-status: 0\r\n"
    )
    back = fields(
        "X-Sum: 1", "Set-Cookie: a=1", "Access-Control-Allow-Origin: *", "Content-Length: 1", "Elizacloud-Error: x"
    )
    assert hygiene.trailer_lines(back, to_agent=False) == b"X-Sum: 1\r\n"


def test_the_api_gets_its_credentials_but_no_claims() -> None:
    head = RequestHead(
        b"POST",
        b"/api/v1/agents",
        1,
        fields(
            "Host: cloud.test",
            "Authorization: Bearer ec_x",
            "Elizacloud-Owner: u",
            "Cookie: a=1",
            "X-Forwarded-For: 6.6.6.6",
            "Connection: X-A",
            "X-A: 1",
        ),
        b"cloud.test",
    )
    raw = hygiene.api_request(
        head,
        target=b"/api/v1/agents",
        framing=Framing(Kind.LENGTH, 3),
        upgrade=None,
        forwarded_lines=b"X-Forwarded-For: 192.0.2.1\r\n",
    )
    assert raw.decode().split("\r\n")[:-2] == [
        "POST /api/v1/agents HTTP/1.1",
        "Host: cloud.test",
        "Authorization: Bearer ec_x",
        "Elizacloud-Owner: u",
        "Cookie: a=1",
        "X-Forwarded-For: 192.0.2.1",
        "Content-Length: 3",
    ]
