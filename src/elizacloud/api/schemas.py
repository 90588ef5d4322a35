"""What is answered: camelCase, as in the seed."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from elizacloud.agents.messages import message
from elizacloud.auth.issuing import Issued
from elizacloud.auth.jwts import IssuedJwt
from elizacloud.model import ApiToken, Event, Scope
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
    "idlePolicy": {},
    "generation": 1,
    "run": 1,
    "failure": None,
    "createdAt": _EXAMPLE_TIME,
    "updatedAt": _EXAMPLE_TIME,
}


class Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True)


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
    idle_policy: dict[str, Any] = Field(description="What it says itself about when nobody uses it.")
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


class Token(Wire):
    token_id: str
    name: str
    owner_id: str
    scopes: list[Scope]
    agent_id: str | None
    created_at: datetime
    expires_at: datetime | None


class CreatedToken(Token):
    kind: Literal["api", "jwt"] = Field(description="`jwt` is not stored, so that it is in no list.")
    token: str = Field(description="The token itself; shown this once.", examples=["ec_…"])


class Ticket(Wire):
    """Lets a browser in, once, without a token in its URL."""

    ticket: str = Field(
        description="For a WebSocket or an event stream at the agent's host, as the query parameter `elizacloud_ticket`.",
        examples=["ect_…"],
    )
    url: str = Field(
        description="Opened in a browser it begins a session and goes on to the agent's page; add `&next=/path` for another.",
        examples=[f"https://{EXAMPLE_ID}.agents.example.com/.elizacloud/session?elizacloud_ticket=ect_…"],
    )
    expires_at: datetime = Field(description="Until then it can be redeemed.")


class Jwks(Wire):
    """RFC 7517: the public keys of our JWTs and of the assertions that agents get."""

    keys: list[dict[str, str]]


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


class Reported(Wire):
    status: Literal["confirmed", "unknown"] = Field(
        description="`confirmed`: Headscale has that address for it. `unknown`: Headscale has none yet."
    )


class NewKey(Wire):
    headscale_url: str
    headscale_auth_key: str = Field(description="Single-use; shown this once.")
    expires_at: datetime


class BusyUntil(Wire):
    busy_until: datetime


class AgentStats(Wire):
    """What an agent uses, its tailscaled included."""

    at: datetime
    cpu_seconds: float = Field(description="CPU time since it was started.")
    memory_bytes: int
    memory_limit_bytes: int | None = Field(description="None where the runtime sets none.")
    received_bytes: int | None = Field(description="None where its network is not parted from the host's.")
    sent_bytes: int | None


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
        "idle_policy": dict(agent.spec.idle_policy),
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
    return CreatedToken(**token_fields(issued.token), kind="api", token=issued.value.get_secret_value())


def created_jwt_of(issued: IssuedJwt) -> CreatedToken:
    return CreatedToken(
        token_id=issued.id,
        name="jwt",
        owner_id=issued.owner_id,
        scopes=[Scope.RELAY],
        agent_id=issued.agent_id,
        created_at=issued.created_at,
        expires_at=issued.expires_at,
        kind="jwt",
        token=issued.value.get_secret_value(),
    )
