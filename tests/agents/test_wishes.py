"""What an owner may ask for."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from elizacloud.agents.wishes import CONFIG_MAX_BYTES, ENVIRONMENT_MAX_VARIABLES, checked_spec
from elizacloud.errors import Invalid
from elizacloud.model import AgentSpec


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"config": {"a": "x" * CONFIG_MAX_BYTES}}, "config_too_large"),
        ({"config": {"a": float("nan")}}, "invalid_config"),
        ({"environment": {"TS_AUTHKEY": "x"}}, "reserved_environment"),
        ({"environment": {"ELIZACLOUD_JOIN_TOKEN": "x"}}, "reserved_environment"),
        ({"environment": {"PORT": "1"}}, "reserved_environment"),
        ({"secrets": {"MILADY_CLOUD_PROVISIONED": SecretStr("0")}}, "reserved_environment"),
        ({"environment": {"1A": "x"}}, "invalid_environment"),
        ({"environment": {"A=B": "x"}}, "invalid_environment"),
        ({"environment": {"A": "\0"}}, "invalid_environment"),
        ({"environment": {f"A{n}": "x" for n in range(ENVIRONMENT_MAX_VARIABLES + 1)}}, "environment_too_large"),
        ({"environment": {"A": "x" * 70_000}}, "environment_too_large"),
        ({"command": ()}, "invalid_command"),
        ({"command": ("a\0",)}, "invalid_command"),
        ({"port": 0}, "invalid_port"),
        ({"port": 65536}, "invalid_port"),
        ({"health_path": "api/health"}, "invalid_health"),
        ({"health_path": "/a b"}, "invalid_health"),
        ({"health_path": "/a\r\nX: y"}, "invalid_health"),
        ({"resources": {"a": "x" * 70_000}}, "options_too_large"),
        ({"idle_policy": {"a": "x" * 70_000}}, "options_too_large"),
    ],
)
def test_what_cannot_be_accepted_is_told(fields: dict[str, Any], code: str) -> None:
    with pytest.raises(Invalid) as caught:
        checked_spec(AgentSpec(**fields))
    assert caught.value.reason == code
    assert len(str(caught.value)) < 400


def test_ordinary_wishes_pass() -> None:
    spec = AgentSpec(
        image="ghcr.io/x/y:1",
        command=("node", "index.js"),
        environment={"A": "1", "PORTAL": "x", "_x": ""},
        secrets={"TOKEN": SecretStr("s")},
        config={"nested": [1, None, {"ä": "ö"}]},
        port=3000,
        health_path="/health",
    )
    assert checked_spec(spec) is spec
