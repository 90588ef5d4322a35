"""What a request may hold: camelCase, as in the seed. Unknown fields are refused, so that a typo is told.

What cannot be said in a document (a name's characters, sizes) is checked by functions that answer with a sentence; the
document says the same by patterns.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Discriminator, Field, SecretStr, Tag
from pydantic.alias_generators import to_camel

from elizacloud.agents.wishes import (
    COMMAND_MAX_WORDS,
    CONFIG_MAX_BYTES,
    ENVIRONMENT_MAX_VARIABLES,
    HEALTH_PATTERN,
    RESERVED_PATTERN,
    VARIABLE_PATTERN,
)
from elizacloud.api.idle import IdlePolicy
from elizacloud.api.schemas import Wire
from elizacloud.auth.access import OWNER_ID_PATTERN
from elizacloud.auth.issuing import checked_token_name
from elizacloud.auth.jwt import OUR_LIFETIME_SECONDS
from elizacloud.auth.jwts import DEFAULT_SECONDS
from elizacloud.errors import Invalid
from elizacloud.model import AgentSpec, Scope, checked_agent_name


class Request(Wire):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", strict=True)


def _checked_name(name: str) -> str:
    if checked_agent_name(name) != name:
        raise Invalid("cannot use an agent name with spaces around it: remove them", code="invalid_name")
    return name


# The document says by patterns what is checked by functions, which say what is wrong in a sentence. These are the characters
# of Unicode's categories Cc, Cf, Co, Zl and Zp (JSON that is valid has none of Cs), and its spaces.
_HIDDEN = (
    r"\x00-\x1f\x7f-\x9f\xad\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    r"\u2060-\u2064\u2066-\u206f\ue000-\uf8ff\ufeff\ufff9-\ufffb"
    "\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0001"
    "\U000e0020-\U000e007f\U000f0000-\U000ffffd\U00100000-\U0010fffd"
)
_SPACES = r" \xa0\u1680\u2000-\u200a\u202f\u205f\u3000"
_NAME = {
    "minLength": 1,
    "maxLength": 100,
    "pattern": f"^[^{_HIDDEN}{_SPACES}](?:[^{_HIDDEN}]*[^{_HIDDEN}{_SPACES}])?$",
}
_NO_NUL = {"pattern": r"^[^\x00]*$"}

AgentName = Annotated[
    str,
    AfterValidator(_checked_name),
    Field(
        description="1 to 100 characters without control characters; unique among the owner's agents.",
        json_schema_extra=_NAME,
    ),
]
TokenName = Annotated[
    str, AfterValidator(checked_token_name), Field(description="For the list.", json_schema_extra=_NAME)
]
_VARIABLES: dict[str, Any] = {
    "maxProperties": ENVIRONMENT_MAX_VARIABLES // 2,
    "propertyNames": {"pattern": VARIABLE_PATTERN, "not": {"pattern": RESERVED_PATTERN}},
}


def _whole(value: Any) -> Any:
    """JSON Schema has one kind of number: 80.0 is an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Port = Annotated[int, Field(ge=1, le=65535), BeforeValidator(_whole)]
Value = Annotated[str, Field(json_schema_extra=_NO_NUL)]
SecretValue = Annotated[SecretStr, Field(json_schema_extra=_NO_NUL)]


class Spec(Request):
    """What an agent is made of. What is left out has a default; a change takes effect at the next start."""

    agent_config: dict[str, Any] | None = Field(
        None, description=f"Given to the agent as a JSON file; at most {CONFIG_MAX_BYTES} bytes as JSON."
    )
    image: str | None = Field(
        None, min_length=1, max_length=255, description="A container image, where images are used."
    )
    command: list[Value] | None = Field(
        None, min_length=1, max_length=COMMAND_MAX_WORDS, description="Instead of the agent's own command."
    )
    environment: dict[str, Value] | None = Field(
        None, description="Environment variables; names that the cloud sets are refused.", json_schema_extra=_VARIABLES
    )
    secrets: dict[str, SecretValue] | None = Field(
        None, description="Environment variables that are never shown again.", json_schema_extra=_VARIABLES
    )
    port: Port | None = Field(None, description="The port that the agent listens on, if it is not 2138.")
    health: str | None = Field(
        None,
        description="Path that answers 200 or 401 when the agent lives; /api/health unless given.",
        json_schema_extra={"pattern": HEALTH_PATTERN},
    )
    resources: dict[str, Any] | None = Field(None, description="Limits, as the runtime understands them.")
    idle_policy: IdlePolicy | None = Field(None, description="What to do with it when nobody uses it.")

    def apply_to(self, spec: AgentSpec) -> AgentSpec:
        """The spec with the fields that were sent; null gives a field its default back."""
        default, given = AgentSpec(), self.model_fields_set
        values: dict[str, Any] = {name: getattr(spec, name) for name in AgentSpec.__dataclass_fields__}
        for wire, name in _SPEC_FIELDS.items():
            if wire in given:
                value = getattr(self, wire)
                values[name] = getattr(default, name) if value is None else value
        if isinstance(values["idle_policy"], IdlePolicy):
            values["idle_policy"] = values["idle_policy"].stored()
        if isinstance(values["command"], list):
            values["command"] = tuple(values["command"])
        return AgentSpec(**values)


_SPEC_FIELDS: Mapping[str, str] = {
    "agent_config": "config",
    "image": "image",
    "command": "command",
    "environment": "environment",
    "secrets": "secrets",
    "port": "port",
    "health": "health_path",
    "resources": "resources",
    "idle_policy": "idle_policy",
}


class CreateAgent(Spec):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{"agentName": "ada", "agentConfig": {"theme": "dark", "runMode": "cloud"}}]}
    )

    agent_name: AgentName
    owner_id: str | None = Field(
        None,
        description="For service tokens: the owner that it is for.",
        json_schema_extra={"pattern": OWNER_ID_PATTERN},
    )
    external: bool = Field(False, description="It is started by hand; the answer tells the environment that it needs.")


class ChangeAgent(Spec):
    model_config = ConfigDict(json_schema_extra={"examples": [{"agentName": "ada lovelace"}]})

    agent_name: AgentName | None = None


class CreateAgentToken(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "phone", "expiresInSeconds": 86400}]})

    kind: Literal["api"] = "api"
    name: TokenName = "agent token"
    expires_in_seconds: float | None = Field(None, ge=1, le=10 * 366 * 86400)


class CreateToken(CreateAgentToken):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "laptop", "scopes": ["owner"]}]})

    name: TokenName
    scopes: list[Annotated[Scope, Field(strict=False)]] | None = Field(
        None, min_length=1, max_length=3, description="`owner` manages and reaches, `relay` only reaches."
    )


class CreateJwt(Request):
    """A short-lived token that is not stored: for a browser or another place that should hold nothing for long."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"kind": "jwt", "expiresInSeconds": 900}]})

    kind: Literal["jwt"]
    expires_in_seconds: float = Field(DEFAULT_SECONDS, ge=1, le=OUR_LIFETIME_SECONDS)


def _kind_of(body: Any) -> str:
    kind = body.get("kind", "api") if isinstance(body, dict) else getattr(body, "kind", "api")
    return kind if isinstance(kind, str) else "?"


_Jwt = Annotated[CreateJwt, Tag("jwt")]
NewToken = Annotated[Annotated[CreateToken, Tag("api")] | _Jwt, Discriminator(_kind_of)]
NewAgentToken = Annotated[Annotated[CreateAgentToken, Tag("api")] | _Jwt, Discriminator(_kind_of)]


class Approval(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"userCode": "BCDF-GHJK"}]})

    user_code: str = Field(max_length=64)


class Report(Request):
    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"headscaleIp": "100.64.0.7"}]})

    headscale_ip: str = Field(max_length=64)


class Busy(Request):
    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"seconds": 300}]})

    seconds: float = Field(60, ge=0, le=3600, description="How long it wants not to be paused.")
