"""The nouns: agents, their generations and runs, owners, tokens, cells. Plain frozen data, no I/O.

A *generation* is one identity on the tailnet: a state volume and the node it joined as. A *run* counts starts within a
generation. Both only grow; an agent id is never used twice.
"""

from __future__ import annotations

import re
import secrets
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import SecretStr

from elizacloud.errors import Invalid
from elizacloud.states import State, Wanted

AGENT_PORT = 2138
"""The one tailnet port an agent is reached on; the policy opens no other."""

HOSTNAME_PREFIX = "milaidy-"
TAG_AGENT = "tag:agent"
TAG_RELAY = "tag:relay"
TAG_OPERATOR = "tag:operator"

# No vowels, 0, 1, l: an id never spells a word and is safe in a DNS label, a Headscale tag and a file name.
_ID_ALPHABET = "bcdfghjkmnpqrstvwxz23456789"
_AGENT_ID = re.compile(r"[a-z][a-z0-9]{15}")
_NAME_MAX = 100


def new_agent_id() -> str:
    """16 characters, a letter first, about 75 random bits."""
    return secrets.choice(_ID_ALPHABET[:19]) + "".join(secrets.choice(_ID_ALPHABET) for _ in range(15))


def is_agent_id(text: str) -> bool:
    return _AGENT_ID.fullmatch(text) is not None


def agent_tag(agent_id: str) -> str:
    """The tag that only this agent's node carries; the relay looks for it before every dial."""
    return f"tag:a-{agent_id}"


def installation_tag(installation_id: str) -> str:
    return f"tag:i-{installation_id}"


def agent_hostname(agent_id: str) -> str:
    """The node's hostname: a label for people, at most 63 characters, never an identity."""
    return f"{HOSTNAME_PREFIX}{agent_id}"


def checked_agent_name(name: str) -> str:
    """Return the name, trimmed; raise Invalid when it is empty, over 100 characters or has control characters."""
    trimmed = name.strip()
    if not trimmed:
        raise Invalid("cannot use an empty agent name: give one of 1 to 100 characters", code="invalid_name")
    if len(trimmed) > _NAME_MAX:
        raise Invalid(
            f"cannot use an agent name of {len(trimmed)} characters: the limit is {_NAME_MAX}", code="invalid_name"
        )
    if any(unicodedata.category(character) in {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"} for character in trimmed):
        raise Invalid("cannot use an agent name with control characters: remove them", code="invalid_name")
    return trimmed


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """What the owner asked for. `secrets` and `config` are encrypted at rest by the store."""

    image: str | None = None
    command: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, SecretStr] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    port: int | None = None
    health_path: str = "/api/health"
    resources: Mapping[str, Any] = field(default_factory=dict)
    idle_policy: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the last step did not succeed and what happens next. `fix` says what a person can do, if anything."""

    step: str
    reason: str
    code: str
    attempts: int
    retry_at: datetime | None
    fix: str = ""


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent as the store knows it. `revision` grows with every write and fences concurrent ones."""

    id: str
    owner_id: str
    name: str
    spec: AgentSpec
    wanted: Wanted
    state: State
    cell_id: str
    host_id: str
    external: bool = False
    """Started by hand (`agent create --external`): no runtime instance is ours to start or stop."""
    generation: int = 1
    run: int = 0
    agent_ready: bool | None = None
    """The agent's own `ready` flag at its last health answer; None until it has answered."""
    failure: Failure | None = None
    revision: int = 0
    created_at: datetime = field(default_factory=utc_now)
    updated_at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, slots=True)
class Generation:
    """One tailnet identity of an agent. Ids are Headscale's, as strings; the key's value is never stored."""

    agent_id: str
    number: int
    preauth_key_id: str | None = None
    preauth_key_expired: bool = False
    node_id: str | None = None
    node_key: str | None = None
    machine_key: str | None = None
    ipv4: str | None = None
    ipv6: str | None = None
    joined_at: datetime | None = None
    created_at: datetime = field(default_factory=utc_now)


@dataclass(frozen=True, slots=True)
class Run:
    """One start within a generation. `runtime_ref` is how the runtime names the instance.

    Its three credentials are minted at the start: the agent's own API token (encrypted at rest, since the relay puts it
    on every request), and the tokens that the container reports with (only their SHA-256 is kept).
    """

    agent_id: str
    generation: int
    number: int
    runtime_ref: str | None = None
    agent_token: SecretStr | None = None
    join_token_sha256: str | None = None
    busy_token_sha256: str | None = None
    started_at: datetime | None = None
    ready_at: datetime | None = None
    ended_at: datetime | None = None
    end_reason: str | None = None
    busy_until: datetime | None = None
    """Until then its container said that it works and must not be paused; written by that call alone."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of an agent's history; `sequence` is unique in the installation and only grows."""

    sequence: int
    agent_id: str
    at: datetime
    step: str
    state_from: State | None
    state_to: State
    generation: int
    run: int
    reason: str = ""
    seconds: float | None = None


class Scope(StrEnum):
    """What a token may do. SERVICE may name any owner; RELAY reaches agents only."""

    SERVICE = "service"
    OWNER = "owner"
    RELAY = "relay"


class TokenKind(StrEnum):
    """Where a token's value counts: API as a bearer, SESSION as a browser's cookie at one agent's host."""

    API = "api"
    SESSION = "session"


@dataclass(frozen=True, slots=True)
class ApiToken:
    """An API token as stored: its value is shown once and only its SHA-256 is kept."""

    id: str
    owner_id: str
    name: str
    scopes: frozenset[Scope]
    agent_id: str | None
    sha256: str
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    kind: TokenKind = TokenKind.API
    parent_id: str | None = None
    """The API token that a session was made with; it does not outlive it."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling, after authentication. A token that is bound to one agent carries its id."""

    token_id: str
    owner_id: str
    scopes: frozenset[Scope]
    agent_id: str | None = None
    expires_at: datetime | None = None
    issuer: str | None = None
    """The trusted issuer whose JWT this was; None for a token of ours."""

    @property
    def parent_id(self) -> str | None:
        """The token of ours with which everything that is made for this caller is revoked."""
        return self.token_id if self.issuer is None else None


OPERATOR = "operator"
"""The owner of the operator's own tokens."""

DEFAULT_CELL_ID = "default"
DEFAULT_HOST_ID = "local"
"""The one cell and the one host of an installation on one machine."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One Headscale and the tailnet it coordinates."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Host:
    """One place where instances run: a runtime of a kind."""

    id: str
    name: str
    runtime: str
