"""What an owner may ask for, checked before it is stored: sizes, names of variables, ports. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from elizacloud.agents.idle.policy import check_policy
from elizacloud.errors import Invalid
from elizacloud.model import AgentSpec

CONFIG_MAX_BYTES = 1024 * 1024
ENVIRONMENT_MAX_BYTES = 64 * 1024
ENVIRONMENT_MAX_VARIABLES = 256
COMMAND_MAX_WORDS = 256

VARIABLE_PATTERN = "^[A-Za-z_][A-Za-z0-9_]{0,127}$"
_VARIABLE = re.compile(VARIABLE_PATTERN.removesuffix("$"))
# What we tell the instance ourselves: an owner who could set it could send an agent to another tailnet or take its guard off.
RESERVED_PATTERN = (
    "^(?:_?ELIZACLOUD_.*|(?:HEADSCALE|TS)_.*|CONTAINER_ID|PORT"
    "|(?:MILADY|ELIZA)_(?:API_TOKEN|API_BIND|PORT|STATE_DIR|CLOUD_PROVISIONED|ALLOW_WS_QUERY_TOKEN))$"
)
_OURS = re.compile(RESERVED_PATTERN.removesuffix("$"))
HEALTH_PATTERN = "^/[!-~]{0,255}$"
_HEALTH_PATH = re.compile(HEALTH_PATTERN.removesuffix("$"))
OPTIONS_MAX_BYTES = 64 * 1024


def checked_spec(spec: AgentSpec) -> AgentSpec:
    """Return it; raise Invalid with a sentence on the first thing that cannot be accepted."""
    _check_config(spec.config)
    _check_variables(spec.environment, spec.secrets)
    for name, options in (("resources", spec.resources), ("idlePolicy", spec.idle_policy)):
        if _json_bytes(name, options) > OPTIONS_MAX_BYTES:
            raise Invalid(f"cannot accept {name}: it is over {OPTIONS_MAX_BYTES} bytes", code="options_too_large")
    check_policy(spec.idle_policy)
    if spec.port is not None and not 1 <= spec.port <= 65535:
        raise Invalid(f"cannot use port {spec.port}: give one from 1 to 65535", code="invalid_port")
    if _HEALTH_PATH.fullmatch(spec.health_path) is None:
        raise Invalid(
            "cannot use this health path: begin it with / and use at most 256 visible characters", code="invalid_health"
        )
    if spec.command is not None:
        if not spec.command or len(spec.command) > COMMAND_MAX_WORDS:
            raise Invalid(f"cannot use this command: give 1 to {COMMAND_MAX_WORDS} words", code="invalid_command")
        if any("\0" in word for word in spec.command):
            raise Invalid("cannot use this command: it has a NUL character", code="invalid_command")
    return spec


def _check_config(config: Mapping[str, Any]) -> None:
    size = _json_bytes("agentConfig", config)
    if size > CONFIG_MAX_BYTES:
        raise Invalid(
            f"cannot accept an agentConfig of {size} bytes: the limit is {CONFIG_MAX_BYTES}", code="config_too_large"
        )


def _json_bytes(name: str, value: Mapping[str, Any]) -> int:
    try:
        return len(json.dumps(value, allow_nan=False).encode())
    except (ValueError, RecursionError) as error:
        raise Invalid(f"cannot accept {name}: it is not plain JSON", code="invalid_config") from error


def _check_variables(environment: Mapping[str, str], secrets: Mapping[str, SecretStr]) -> None:
    values = dict(environment) | {name: secret.get_secret_value() for name, secret in secrets.items()}
    if both := set(environment) & set(secrets):
        raise Invalid(
            f"cannot set {sorted(both)[0]} in environment and in secrets: choose one", code="invalid_environment"
        )
    for name, value in values.items():
        if _VARIABLE.fullmatch(name) is None:
            raise Invalid(
                # Not repeated: with NAME=value in it, it has a secret.
                "cannot set a variable whose name is not made of letters, digits and _, or begins with a digit: correct it",
                code="invalid_environment",
            )
        if _OURS.fullmatch(name):
            raise Invalid(f"cannot set the variable {name}: it is set by the cloud itself", code="reserved_environment")
        if "\0" in value:
            raise Invalid(f"cannot set the variable {name}: its value has a NUL character", code="invalid_environment")
    size = sum(len(name) + len(value.encode(errors="surrogatepass")) for name, value in values.items())
    if len(values) > ENVIRONMENT_MAX_VARIABLES or size > ENVIRONMENT_MAX_BYTES:
        raise Invalid(
            f"cannot accept {len(values)} variables of {size} bytes: the limits are {ENVIRONMENT_MAX_VARIABLES} and "
            f"{ENVIRONMENT_MAX_BYTES}",
            code="environment_too_large",
        )
