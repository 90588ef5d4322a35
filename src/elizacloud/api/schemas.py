"""What goes over the wire: camelCase, as in the seed. Requests refuse fields that they do not know, so that a typo is told."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from elizacloud.agents.messages import message
from elizacloud.agents.wishes import (
    COMMAND_MAX_WORDS,
    CONFIG_MAX_BYTES,
    ENVIRONMENT_MAX_VARIABLES,
    HEALTH_PATTERN,
    RESERVED_PATTERN,
    VARIABLE_PATTERN,
)
from elizacloud.auth.access import OWNER_ID_PATTERN
from elizacloud.auth.issuing import Issued, checked_token_name
from elizacloud.errors import Invalid
from elizacloud.model import AgentSpec, ApiToken, Event, Scope, checked_agent_name
from elizacloud.states import State, Wanted
from elizacloud.store import Record

EXAMPLE_ID = "k7mq2xz9fhb3wcd4"
_EXAMPLE_TIME = "2026-01-02T03:04:05.678901Z"
EXAMPLE_AGENT: dict[str, Any] = {
    "agentId": EXAMPLE_ID,
    "agentName": "ada",
    "ownerId": "user-17",
    "status": "ready",
    "wanted": "running",
    "headscaleIp": "100.64.0.7",
    "networking": {"headscaleIp": "100.64.0.7"},
    "agentReady": True,
    "message": "It is ready.",
    "external": False,
    "image": None,
    "generation": 1,
    "run": 1,
    "failure": None,
    "createdAt": _EXAMPLE_TIME,
    "updatedAt": _EXAMPLE_TIME,
}


class Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


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
    idle_policy: dict[str, Any] | None = Field(None, description="What to do with it when nobody uses it.")

    def apply_to(self, spec: AgentSpec) -> AgentSpec:
        """The spec with the fields that were sent; null gives a field its default back."""
        default, given = AgentSpec(), self.model_fields_set
        values: dict[str, Any] = {name: getattr(spec, name) for name in AgentSpec.__dataclass_fields__}
        for wire, name in _SPEC_FIELDS.items():
            if wire in given:
                value = getattr(self, wire)
                values[name] = getattr(default, name) if value is None else value
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


class Networking(Wire):
    headscale_ip: str | None = Field(description="Its address on the tailnet, once it has joined.")


class Failure(Wire):
    """Why the last step did not succeed, and when it is tried again."""

    step: str
    code: str
    reason: str
    attempts: int
    retry_at: datetime | None
    fix: str


class Agent(Wire):
    model_config = ConfigDict(json_schema_extra={"examples": [EXAMPLE_AGENT]})

    agent_id: str
    agent_name: str
    owner_id: str
    status: State = Field(description="How far it is. It can be reached while it is `ready`.")
    wanted: Wanted = Field(description="Where its owner wants it.")
    headscale_ip: str | None
    networking: Networking
    agent_ready: bool | None = Field(
        description="What the agent itself says at its health path; null until it answers."
    )
    message: str = Field(description="One sentence: why it is not ready and what happens next.")
    external: bool
    image: str | None
    generation: int
    run: int
    failure: Failure | None
    created_at: datetime
    updated_at: datetime


class AgentWithEnvironment(Agent):
    """`environment` is there for an external agent that got a new key, in this one answer."""

    environment: dict[str, str] | None = Field(None, description="What to start it with by hand; shown this once.")


class AgentPage(Wire):
    items: list[Agent]
    next: str | None = Field(description="Give it as `cursor` to get the next page; null on the last one.")


class AgentEvent(Wire):
    """One line of an agent's history."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "sequence": 42,
                    "agentId": EXAMPLE_ID,
                    "at": _EXAMPLE_TIME,
                    "step": "await join",
                    "stateFrom": "started",
                    "stateTo": "joined",
                    "generation": 1,
                    "run": 1,
                    "reason": "",
                    "seconds": 0.31,
                }
            ]
        }
    )

    sequence: int
    agent_id: str
    at: datetime
    step: str
    state_from: State | None
    state_to: State
    generation: int
    run: int
    reason: str
    seconds: float | None


class EventPage(Wire):
    items: list[AgentEvent]
    next: str | None = Field(description="Give it as `after` to go on from here; null when there is no more yet.")


class CreateAgentToken(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "phone", "expiresInSeconds": 86400}]})

    name: TokenName
    expires_in_seconds: float | None = Field(None, ge=1, le=10 * 366 * 86400)


class CreateToken(CreateAgentToken):
    model_config = ConfigDict(json_schema_extra={"examples": [{"name": "laptop", "scopes": ["owner"]}]})

    scopes: list[Annotated[Scope, Field(strict=False)]] | None = Field(
        None, min_length=1, max_length=3, description="`owner` manages and reaches, `relay` only reaches."
    )


class Token(Wire):
    token_id: str
    name: str
    owner_id: str
    scopes: list[Scope]
    agent_id: str | None
    created_at: datetime
    expires_at: datetime | None


class CreatedToken(Token):
    token: str = Field(description="The token itself; shown this once.", examples=["ec_…"])


class TokenPage(Wire):
    items: list[Token]
    next: str | None = None


class CliSession(Wire):
    session_id: str = Field(description="Poll with it; it is a secret.")
    browser_url: str = Field(description="A person opens it and approves.")
    user_code: str = Field(description="What the page shows; the person compares it.")
    status: Literal["pending", "approved", "taken", "expired"]
    expires_at: datetime
    token: str | None = Field(None, description="An API token of the owner who approved; in exactly one answer.")


class Approval(Request):
    model_config = ConfigDict(json_schema_extra={"examples": [{"userCode": "BCDF-GHJK"}]})

    user_code: str = Field(max_length=64)


class Report(Request):
    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"headscaleIp": "100.64.0.7"}]})

    headscale_ip: str = Field(max_length=64)


class Reported(Wire):
    status: Literal["confirmed", "unknown"] = Field(
        description="`confirmed`: Headscale has that address for it. `unknown`: Headscale has none yet."
    )


class NewKey(Wire):
    headscale_url: str
    headscale_auth_key: str = Field(description="Single-use; shown this once.")
    expires_at: datetime


class Busy(Request):
    model_config = ConfigDict(extra="ignore", json_schema_extra={"examples": [{"seconds": 300}]})

    seconds: float = Field(60, ge=0, le=3600, description="How long it wants not to be paused.")


class BusyUntil(Wire):
    busy_until: datetime


class Health(Wire):
    status: Literal["ok", "ready"]
    checks: dict[str, str] = Field(default_factory=dict, description="What was checked: `ok`, or why it is not.")


def agent_fields(record: Record) -> dict[str, Any]:
    agent, generation = record.agent, record.generation
    failure = agent.failure
    return {
        "agent_id": agent.id,
        "agent_name": agent.name,
        "owner_id": agent.owner_id,
        "status": agent.state,
        "wanted": agent.wanted,
        "headscale_ip": generation.ipv4,
        "networking": Networking(headscale_ip=generation.ipv4),
        "agent_ready": agent.agent_ready,
        "message": message(agent),
        "external": agent.external,
        "image": agent.spec.image,
        "generation": agent.generation,
        "run": agent.run,
        "failure": None
        if failure is None
        else Failure(
            step=failure.step,
            code=failure.code,
            reason=failure.reason,
            attempts=failure.attempts,
            retry_at=failure.retry_at,
            fix=failure.fix,
        ),
        "created_at": agent.created_at,
        "updated_at": agent.updated_at,
    }


def agent_of(record: Record) -> Agent:
    return Agent(**agent_fields(record))


def event_of(event: Event) -> AgentEvent:
    return AgentEvent(
        sequence=event.sequence,
        agent_id=event.agent_id,
        at=event.at,
        step=event.step,
        state_from=event.state_from,
        state_to=event.state_to,
        generation=event.generation,
        run=event.run,
        reason=event.reason,
        seconds=event.seconds,
    )


def token_fields(token: ApiToken) -> dict[str, Any]:
    return {
        "token_id": token.id,
        "name": token.name,
        "owner_id": token.owner_id,
        "scopes": sorted(token.scopes),
        "agent_id": token.agent_id,
        "created_at": token.created_at,
        "expires_at": token.expires_at,
    }


def created_token_of(issued: Issued) -> CreatedToken:
    return CreatedToken(**token_fields(issued.token), token=issued.value.get_secret_value())
