"""Black box: a worker over real sockets, an agent behind a fake tailscaled, raw bytes at both ends."""

from tests.relay.conftest import AGENT, IP, Cloud, RawAgent, request


async def test_a_request_reaches_the_agent_and_its_answer_comes_back(cloud: Cloud) -> None:
    agent = RawAgent(b"HTTP/1.1 201 Made\r\nContent-Length: 5\r\nX-From: agent\r\n\r\nhello")
    cloud.agent(agent)
    answer = await cloud.ask(request("/api/health?deep=1"))
    assert (answer.status, answer.body, answer.header("X-From")) == (201, b"hello", "agent")
    assert answer.header("Elizacloud-Error") is None
    assert agent.lines[0] == b"GET /api/health?deep=1 HTTP/1.1"
    assert b"Host: " + f"{IP}:2138".encode() in agent.lines
    assert b"Authorization: Bearer eca_agentsowntoken" in agent.lines
    assert b"X-Forwarded-Prefix: /api/relay/" + AGENT.encode() in agent.lines
