"""What the API answers, read."""

from elizacloud.client import Agent, CliSession, CreatedToken
from elizacloud.states import State


def test_an_agent_is_read_from_the_seeds_shape() -> None:
    agent = Agent.model_validate(
        {"agentId": "a", "agentName": "n", "status": "ready", "networking": {"headscaleIp": "100.64.0.3"}}
    )
    assert (agent.ip, agent.state, agent.agent_ready) == ("100.64.0.3", State.READY, None)


def test_what_a_newer_server_says_is_kept() -> None:
    agent = Agent.model_validate({"agentId": "a", "agentName": "n", "status": "dreaming", "mood": "good"})
    assert agent.state is None
    assert agent.as_json()["mood"] == "good"


def test_secrets_are_masked() -> None:
    token = CreatedToken.model_validate({"tokenId": "t", "name": "n", "token": "ec_secret"})
    session = CliSession.model_validate(
        {"sessionId": "cs_secret", "browserUrl": "http://x", "status": "approved", "token": "ec_secret"}
    )
    for shown in (repr(token), str(token.as_json()), repr(session), str(session.as_json())):
        assert "secret" not in shown


def test_an_environment_is_kept_from_sight() -> None:
    agent = Agent.model_validate(
        {"agentId": "a", "agentName": "n", "status": "started", "environment": {"HEADSCALE_AUTH_KEY": "hskey-secret"}}
    )
    assert "hskey-secret" not in repr(agent) + str(agent.as_json())
