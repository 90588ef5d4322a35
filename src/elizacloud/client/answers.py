"""What the API answers, as models. Fields that a newer server adds are kept, so that `--json` shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic.alias_generators import to_camel

from elizacloud.states import State

_STATES = {state.value: state for state in State}


class Answer(BaseModel):
    """camelCase on the wire, snake_case here."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="allow", frozen=True)

    def as_json(self) -> dict[str, Any]:
        """As the API said it; secrets are masked."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class Networking(Answer):
    headscale_ip: str | None = None


class Agent(Answer):
    """One agent. `environment` is what starts an external one by hand: in the one answer that gave it a new key."""

    agent_id: str
    agent_name: str
    status: str
    headscale_ip: str | None = None
    networking: Networking = Field(default_factory=Networking)
    agent_ready: bool | None = None
    message: str = ""
    external: bool = False
    environment: dict[str, SecretStr] | None = None
    image: str | None = None
    idle_policy: dict[str, Any] = Field(default_factory=dict)
    created_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def since(self) -> datetime | None:
        """When it last changed, as far as the server says."""
        return self.updated_at or self.created_at

    @property
    def ip(self) -> str | None:
        return self.headscale_ip or self.networking.headscale_ip

    @property
    def state(self) -> State | None:
        """None for a state that only a newer server knows."""
        return _STATES.get(self.status)


class AgentEvent(Answer):
    """One transition of an agent."""

    sequence: int
    agent_id: str
    at: datetime
    step: str
    state_from: str | None = None
    state_to: str
    generation: int = 1
    run: int = 0
    reason: str = ""
    seconds: float | None = None


class AgentStats(Answer):
    """What an agent uses, its tailscaled included. Bytes of its network are None where it is not parted from the host's."""

    at: datetime
    cpu_seconds: float
    memory_bytes: int
    memory_limit_bytes: int | None = None
    received_bytes: int | None = None
    sent_bytes: int | None = None


class Token(Answer):
    """An API token as it is listed: never its value."""

    token_id: str
    name: str
    owner_id: str | None = None
    scopes: tuple[str, ...] = ()
    agent_id: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None


class CreatedToken(Token):
    """A new token with its value, which is shown this once."""

    token: SecretStr


class Ticket(Answer):
    """Lets a browser in at one agent, once: by the `url` of its page, or by the ticket itself for one WebSocket."""

    ticket: SecretStr
    url: SecretStr
    expires_at: datetime


class CliSession(Answer):
    """A login by browser: `browser_url` asks a person, then one poll gets the token."""

    session_id: SecretStr
    browser_url: str
    user_code: str = ""
    """The page shows it, and so does whoever began the login: a person compares them."""
    status: str
    expires_at: datetime | None = None
    token: SecretStr | None = None


class Page(Answer):
    """A part of a list; `next` is the cursor of the part after it."""

    items: list[Any]
    next: str | None = None


class Finding(Answer):
    """Something that store, runtime and Headscale do not agree on; `outcome` in the answer of a sweep."""

    kind: str
    agent_id: str = ""
    about: str = ""
    detail: str = ""
    outcome: str = ""


class Swept(Answer):
    findings: tuple[Finding, ...]
    held_because: str | None = None
    dry_run: bool = False


class StoredGeneration(Answer):
    number: int
    key_id: str | None = None
    key_expired: bool = False
    node_id: str | None = None
    ipv4: str | None = None


class StoredRun(Answer):
    generation: int
    number: int
    ref: str | None = None
    ready_at: datetime | None = None
    ended_at: datetime | None = None
    end_reason: str | None = None


class InStore(Answer):
    generations: tuple[StoredGeneration, ...] = ()
    run: StoredRun | None = None


class SeenInstance(Answer):
    ref: str
    phase: str
    exit_code: int | None = None
    reason: str = ""


class SeenVolume(Answer):
    generation: int
    whole: bool = True


class InRuntime(Answer):
    host_id: str = ""
    error: str | None = None
    instances: tuple[SeenInstance, ...] = ()
    volumes: tuple[SeenVolume, ...] = ()


class SeenNode(Answer):
    node_id: str
    hostname: str = ""
    ipv4: str | None = None
    key_id: str | None = None
    online: bool = False
    last_seen: datetime | None = None
    expires_at: datetime | None = None


class SeenKey(Answer):
    key_id: str
    used: bool = False


class InHeadscale(Answer):
    error: str | None = None
    nodes: tuple[SeenNode, ...] = ()
    keys: tuple[SeenKey, ...] = ()


class HealthAnswer(Answer):
    """What a relay got from an agent on its health path."""

    status: int | None = None
    ready: bool | None = None
    error: str | None = None


class Explanation(Answer):
    """One agent as store, runtime and Headscale see it; `answer` is None when it is not up."""

    agent: Agent
    why: str = ""
    next_step: str | None = None
    store: InStore = Field(default_factory=InStore)
    runtime: InRuntime = Field(default_factory=InRuntime)
    headscale: InHeadscale = Field(default_factory=InHeadscale)
    answer: HealthAnswer | None = None
    findings: tuple[Finding, ...] = ()
    findings_error: str | None = None
