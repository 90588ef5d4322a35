"""Headers by which an agent would reach beyond its own origin: cookies, caches and policies of others, and our proxies."""

import pytest

from tests.relay.conftest import AGENT, TOKEN, Answer, Cloud, RawAgent, request

ORIGIN = "https://app.test"
BY_HOST = (
    f"GET / HTTP/1.1\r\nHost: {AGENT}.agents.test\r\nAuthorization: Bearer {TOKEN}\r\nOrigin: {ORIGIN}\r\n\r\n"
).encode()
BY_PATH = request(headers=f"Origin: {ORIGIN}\r\n")

EVERYWHERE = [
    "Access-Control-Allow-Origin: *",
    "Access-Control-Allow-Credentials: true",
    "Access-Control-Expose-Headers: *",
    "Access-Control-Allow-Private-Network: true",
    "Strict-Transport-Security: max-age=99999999; includeSubDomains; preload",
    "Public-Key-Pins: max-age=1",
    "Public-Key-Pins-Report-Only: max-age=1",
    "Expect-CT: max-age=1",
    'Alt-Svc: h3="evil.test:443"',
    'Clear-Site-Data: "*"',
    'Clear-Site-Data: "cookies"',
    "Cache-Control: public, max-age=600",
    "Cache-Control: s-maxage=600",
    "CDN-Cache-Control: max-age=600",
    "Vercel-CDN-Cache-Control: max-age=600",
    "Surrogate-Control: max-age=600",
    "X-Accel-Redirect: /secret",
    "X-Sendfile: /etc/passwd",
    "Elizacloud-Error: agent_unroutable",
    "Elizacloud-Answer: preflight",
    "X-Request-Id: forged",
    "Connection: close, X-Dropped",
    "Keep-Alive: timeout=60",
    "Proxy-Authenticate: Basic",
    "Proxy-Connection: keep-alive",
    "Upgrade: h2c",
    "TE: trailers",
    "Set-Cookie: a=1; Domain=agents.test",
    "Set-Cookie: a=1; path=/; DOMAIN = .test",
    "Set-Cookie: __Host-elizacloud=forged; Secure; Path=/",
    "Set-Cookie: __Secure-elizacloud=forged",
    "Set-Cookie: =__Host-elizacloud=forged",
    "Set-Cookie: elizacloud-session=forged",
]
ON_THE_APIS_ORIGIN = [
    "Set-Cookie: a=1",
    "Set-Cookie: a=1; Domain=",
    "Service-Worker-Allowed: /",
    "Accept-CH: Sec-CH-UA",
    "Origin-Agent-Cluster: ?0",
    "NEL: {}",
    'Reporting-Endpoints: a="https://evil.test"',
    "Content-Security-Policy-Report-Only: default-src x",
]


async def answered(cloud: Cloud, raw: bytes, line: str) -> Answer:
    cloud.agent(RawAgent(f"HTTP/1.1 200 OK\r\n{line}\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok".encode()))
    answer = await cloud.ask(raw)
    assert (answer.status, answer.header("X-Kept")) == (200, "1")
    return answer


@pytest.mark.parametrize("line", EVERYWHERE)
@pytest.mark.parametrize("raw", [BY_PATH, BY_HOST], ids=["path", "host"])
async def test_what_reaches_beyond_the_agents_origin_does_not_pass(cloud: Cloud, raw: bytes, line: str) -> None:
    answer = await answered(cloud, raw, line)
    name, _, value = line.partition(": ")
    assert (name.lower(), value) not in [(key.lower(), value) for key, value in answer.headers]


@pytest.mark.parametrize("line", ON_THE_APIS_ORIGIN)
async def test_on_the_apis_origin_an_agent_keeps_nothing_in_a_browser(cloud: Cloud, line: str) -> None:
    name = line.partition(":")[0]
    by_path = await answered(cloud, BY_PATH, line)
    assert by_path.header(name) is None
    assert by_path.header("Content-Security-Policy") == "sandbox"
    assert by_path.header("X-Content-Type-Options") == "nosniff"
    cloud.worker._reach.close()
    by_host = await answered(cloud, BY_HOST, line)
    assert by_host.header(name) == line.partition(": ")[2]


async def test_an_agent_cannot_loosen_the_sandbox(cloud: Cloud) -> None:
    answer = await answered(cloud, BY_PATH, "Content-Security-Policy: sandbox allow-scripts allow-same-origin")
    policies = [value for key, value in answer.headers if key.lower() == "content-security-policy"]
    assert "sandbox" in policies  # a browser applies all of them


@pytest.mark.parametrize(
    "line", ["X-Dropped: 1", "Set-Cookie: a=1; Domain=agents.test", "Location: http://100.64.0.9/"]
)
async def test_trailers_carry_nothing_that_headers_may_not(cloud: Cloud, line: str) -> None:
    """Whoever reads trailers as headers would be given what was kept back above."""
    allowed = line.startswith("X-Dropped")
    cloud.agent(
        RawAgent(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n" + line.encode() + b"\r\n\r\n")
    )
    client = await cloud.client()
    client.send(BY_HOST)
    head = await client.reader.readuntil(b"\r\n\r\n")
    body = await client.reader.readuntil(b"2\r\nok\r\n0\r\n")
    trailers = await client.reader.readuntil(b"\r\n\r\n" if allowed else b"\r\n")
    assert trailers == (line.encode() + b"\r\n\r\n" if allowed else b"\r\n")
    assert line.encode() not in head + body
