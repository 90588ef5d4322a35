"""How the two containers are made: limits, commands, what the configuration shows and what it must not show."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from typing import Any

import pytest
from pydantic import SecretStr

from elizacloud.errors import RuntimeRefused
from elizacloud.model import AgentSpec
from elizacloud.runtime.docker.configs import (
    DockerOptions,
    Limits,
    agent_config,
    command_of,
    limits_of,
    our_secrets,
    owners_secrets,
    sidecar_config,
)
from elizacloud.runtime.docker.handed import exports
from elizacloud.runtime.docker.images import Image
from elizacloud.runtime.protocol import InstanceSpec
from tests.contract.runtimes import secrets, spec

OPTIONS = DockerOptions(sidecar_image="sidecar", agent_image="agent")
IMAGE = Image("agent", "sha256:abc", ("node",), ("index.js",), "node", {"PATH": "/usr/bin", "NODE_ENV": "production"})


def agent(**fields: Any) -> InstanceSpec:
    return replace(spec(), agent=AgentSpec(**fields))


def test_an_agent_has_the_operators_limits_unless_its_owner_asks_for_others() -> None:
    assert limits_of({}, OPTIONS) == Limits(1024**3, 1.0, 256)
    assert limits_of({"memoryBytes": 2**28, "cpus": 0.5, "pids": 10}, OPTIONS) == Limits(2**28, 0.5, 10)


@pytest.mark.parametrize(
    "resources",
    [
        {"memoryBytes": "1g"},
        {"memoryBytes": 1},
        {"memoryBytes": 2**50},
        {"cpus": 0},
        {"cpus": float("nan")},
        {"cpus": True},
        {"pids": -1},
        {"pids": None},
        {"gpus": 1},
    ],
)
def test_a_limit_that_cannot_be_is_refused(resources: dict[str, Any]) -> None:
    with pytest.raises(RuntimeRefused) as refused:
        limits_of(resources, OPTIONS)

    assert refused.value.reason == "bad_resources"


def test_the_owners_command_takes_the_place_of_the_images_own() -> None:
    assert command_of(agent(), IMAGE) == ("node", "index.js")
    assert command_of(agent(command=("sh", "-c", "x")), IMAGE) == ("sh", "-c", "x")
    with pytest.raises(RuntimeRefused) as refused:
        command_of(agent(), Image("empty", "sha256:e"))
    assert refused.value.reason == "no_command"


@pytest.mark.parametrize("user", ["41641", "41641:0", "041641", "+41641:41641"])
def test_an_image_that_runs_as_the_sidecars_user_is_refused(user: str) -> None:
    with pytest.raises(RuntimeRefused) as refused:
        agent_config(agent(), replace(IMAGE, user=user), OPTIONS, sidecar_id="s")

    assert refused.value.reason == "image_user"


@pytest.mark.parametrize("which", ["sidecar", "agent"])
def test_both_are_confined(which: str) -> None:
    made = (
        sidecar_config(agent(), IMAGE, OPTIONS)
        if which == "sidecar"
        else agent_config(agent(), IMAGE, OPTIONS, sidecar_id="s")
    )

    host = made["HostConfig"]
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["ReadonlyRootfs"] is True
    assert host["Memory"] == host["MemorySwap"] > 0
    assert host["PidsLimit"] > 0
    assert host["NanoCpus"] > 0
    assert host["LogConfig"]["Config"] == {"max-size": "10m", "max-file": "3"}
    assert not {"PortBindings", "PublishAllPorts", "Privileged", "Binds", "CapAdd", "Devices"} & host.keys()
    assert all(mount["Type"] == "volume" for mount in host["Mounts"])
    assert made["Image"] == "sha256:abc"


def test_an_agent_sees_its_images_environment_its_own_and_ours() -> None:
    made = agent_config(
        agent(environment={"THEME": "dark", "PORT": "1", "HEADSCALE_URL": "http://evil"}),
        IMAGE,
        OPTIONS,
        sidecar_id="s",
    )

    environment = dict(variable.split("=", 1) for variable in made["Env"])
    assert environment["PATH"] == "/usr/bin"
    assert environment["THEME"] == "dark"
    assert environment["PORT"] == "2138"
    assert environment["MILADY_API_BIND"] == "0.0.0.0"
    assert environment["HEADSCALE_URL"] == spec().join_url
    assert environment["HOME"] == "/var/lib/elizacloud/agent/home"
    assert "ELIZACLOUD_JOIN_TOKEN" not in environment


def test_no_secret_is_in_a_configuration() -> None:
    canary = SecretStr("canary-of-the-owner")
    of = agent(secrets={"DISCORD_TOKEN": canary}, config={"key": "canary-of-the-config"})

    shown = json.dumps([sidecar_config(of, IMAGE, OPTIONS), agent_config(of, IMAGE, OPTIONS, sidecar_id="s")])

    assert "canary" not in shown
    assert "API_TOKEN" not in shown
    assert owners_secrets(of) == {"DISCORD_TOKEN": "canary-of-the-owner"}
    assert our_secrets(secrets())["MILADY_API_TOKEN"] == "agent-token"


def test_a_secret_cannot_take_a_name_of_ours() -> None:
    of = agent(secrets={"MILADY_API_TOKEN": SecretStr("mine"), "OTHER": SecretStr("kept")})

    assert owners_secrets(of) == {"OTHER": "kept"}


def test_a_secret_whose_name_is_shell_is_refused() -> None:
    with pytest.raises(RuntimeRefused) as refused:
        owners_secrets(agent(secrets={"A; touch /tmp/x; B": SecretStr("v")}))

    assert refused.value.reason == "bad_secret"


@pytest.mark.parametrize("value", ["", "plain", "it's", 'a "b" $c `d` \\e', "line\nline\n", "ü\t'", "$(exit 1)"])
def test_a_shell_reads_any_value_as_it_was(value: str) -> None:
    script = exports({"GIVEN": value}) + b'printf %s "$GIVEN"'

    assert subprocess.run(["/bin/sh"], input=script, capture_output=True, check=True).stdout.decode() == value
