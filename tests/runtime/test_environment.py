"""What an agent's environment has, and what its owner cannot put there."""

from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from elizacloud.model import AgentSpec
from elizacloud.runtime.environment import Listen, Places, agent_environment, is_reserved
from tests.contract.runtimes import secrets, spec

V = Path("/volume")
PLACES = Places(V / "home", V / "state", V / "config.json", V / "join", V / "busy")
UNIX = Listen(socket=Path("/run/agent.sock"))


def environment(
    given: AgentSpec | None = None, *, listen: Listen = UNIX, report_url: str | None = "http://127.0.0.1:9"
) -> tuple[dict[str, str], list[str]]:
    inherited = {"PATH": "/bin", "ELIZACLOUD_OPERATOR_TOKEN": "ours", "AWS_SECRET_ACCESS_KEY": "the operator's"}
    of = replace(spec(), agent=given or AgentSpec(), report_url=report_url)
    return agent_environment(of, secrets(), PLACES, listen, inherited)


def test_it_has_the_containers_side_of_the_contract() -> None:
    made, refused = environment()

    assert refused == []
    assert made == {
        "PATH": "/bin",
        "LANG": "C.UTF-8",
        "HOME": "/volume/home",
        "CONTAINER_ID": spec().labels.agent_id,
        "ELIZACLOUD_GENERATION": str(spec().labels.generation),
        "ELIZACLOUD_RUN": str(spec().labels.run),
        "HEADSCALE_URL": spec().join_url,
        "ELIZACLOUD_API_URL": "http://127.0.0.1:9",
        "ELIZACLOUD_AGENT_CONFIG": "/volume/config.json",
        "ELIZACLOUD_JOIN_TOKEN": "file:/volume/join",
        "ELIZACLOUD_BUSY_TOKEN": "file:/volume/busy",
        "ELIZACLOUD_AGENT_LISTEN": "unix:/run/agent.sock",
        **{f"{brand}_API_TOKEN": "agent-token" for brand in ("MILADY", "ELIZA")},
        **{f"{brand}_STATE_DIR": "/volume/state" for brand in ("MILADY", "ELIZA")},
        **{f"{brand}_CLOUD_PROVISIONED": "1" for brand in ("MILADY", "ELIZA")},
        **{f"{brand}_ALLOW_WS_QUERY_TOKEN": "1" for brand in ("MILADY", "ELIZA")},
    }


def test_without_a_report_url_there_is_no_api_url() -> None:
    assert "ELIZACLOUD_API_URL" not in environment(report_url=None)[0]


def test_an_agent_with_a_port_is_told_to_stay_on_loopback() -> None:
    made, _refused = environment(listen=Listen(port=4321))

    assert {made[name] for name in ("PORT", "MILADY_PORT", "ELIZA_PORT")} == {"4321"}
    assert {made[name] for name in ("MILADY_API_BIND", "ELIZA_API_BIND")} == {"127.0.0.1"}
    assert "ELIZACLOUD_AGENT_LISTEN" not in made


def test_the_owners_variables_and_secrets_are_there() -> None:
    made, refused = environment(
        AgentSpec(environment={"AGENT_NAME": "Ada", "PATH": "/own"}, secrets={"OPENAI_API_KEY": SecretStr("sk")})
    )

    assert refused == []
    assert (made["AGENT_NAME"], made["PATH"], made["OPENAI_API_KEY"]) == ("Ada", "/own", "sk")


@pytest.mark.parametrize(
    "name",
    [
        "CONTAINER_ID",
        "PORT",
        "MILADY_PORT",
        "ELIZA_API_TOKEN",
        "MILADY_API_BIND",
        "MILADY_STATE_DIR",
        "ELIZA_CLOUD_PROVISIONED",
        "HEADSCALE_AUTH_KEY",
        "TS_SOCKET",
        "ELIZACLOUD_AGENT_LISTEN",
        "ELIZACLOUD_ANYTHING",
        "_ELIZACLOUD_PROCESS",
    ],
)
def test_our_own_names_are_refused_and_told(name: str) -> None:
    assert is_reserved(name)
    for given in (AgentSpec(environment={name: "mine"}), AgentSpec(secrets={name: SecretStr("mine")})):
        made, refused = environment(given)
        assert refused == [name]
        assert "mine" not in made.values()


@pytest.mark.parametrize("name", ["LD_PRELOAD", "TSX", "PORTAL", "MILADY_ALLOWED_ORIGINS", "HTTP_PROXY"])
def test_other_names_are_the_owners_affair(name: str) -> None:
    assert not is_reserved(name)


def test_where_tailscaled_forwards_to() -> None:
    assert UNIX.serve_target == "unix:/run/agent.sock"
    assert Listen(port=1).serve_target == "127.0.0.1:1"
