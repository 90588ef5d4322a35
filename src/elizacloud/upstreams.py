"""Where a request for an agent goes: the table that the control plane publishes and every relay worker holds.

The control plane sends a snapshot, then changes, each with a revision; the epoch changes when the control plane
restarts, and a worker that sees a new epoch or a gap asks for a snapshot again. Pure data: relay/link carries it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from pydantic import SecretStr

from elizacloud.model import AGENT_PORT, Scope, TokenKind


@dataclass(frozen=True, slots=True)
class Upstream:
    """One agent's place on the tailnet. Only `routable` ones get owners' requests; the others only probes."""

    agent_id: str
    owner_id: str
    generation: int
    run: int
    cell_id: str
    node_id: str
    """Headscale's node id, which is the StableID in the relay's netmap."""
    ip: str
    agent_token: SecretStr
    """The agent's own API token, put on every request by the relay."""
    port: int = AGENT_PORT
    health_path: str = "/api/health"
    routable: bool = True

    @property
    def pool_key(self) -> tuple[str, int, int]:
        """Connections are pooled by this and never by address: Headscale hands freed addresses to other tenants."""
        return (self.agent_id, self.generation, self.run)


@dataclass(frozen=True, slots=True)
class KnownAgent:
    """An agent that exists but cannot be reached now: enough to authorise the caller and to say why not."""

    agent_id: str
    owner_id: str
    state: str
    message: str
    wakeable: bool = False
    """A request wakes it."""
    coming: bool = False
    """It is on its way to being reachable: a request may wait for it."""
    health_path: str = "/api/health"


@dataclass(frozen=True, slots=True)
class KnownToken:
    """What a relay worker knows of an API token: its SHA-256 (hex) and what it may do."""

    token_id: str
    sha256: str
    owner_id: str
    scopes: frozenset[Scope]
    agent_id: str | None = None
    expires_at: datetime | None = None
    kind: TokenKind = TokenKind.API
    parent_id: str | None = None
    """The token that it does not outlive: revoking that one revokes this one."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that JWTs are checked with: the public part, as the JSON text of RFC 7517, with the one `alg` it is for."""

    kid: str
    jwk: str


@dataclass(frozen=True, slots=True)
class KnownIssuer:
    """Whose JWTs are accepted, and how they name an owner. `audience` None is ours: one agent, or all of an owner's."""

    issuer: str
    keys: tuple[PublicKey, ...]
    audience: str | None = None
    owner_claim: str = "sub"
    owner_prefix: str = ""


@dataclass(frozen=True, slots=True)
class AssertionKey:
    """What relays sign with when they tell an agent who is calling."""

    issuer: str
    kid: str
    private_jwk: SecretStr


@dataclass(frozen=True, slots=True)
class Redemption:
    """What a ticket was exchanged for. With `value`, a session: `token` is in the table and this is the value's only
    appearance. Without, `token` stands for the caller of one request or connection and is in no table."""

    token: KnownToken
    value: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """One revision: what is added or replaced, and what is withdrawn. Withdrawals are applied first."""

    revision: int
    upstreams: tuple[Upstream, ...] = ()
    agents: tuple[KnownAgent, ...] = ()
    tokens: tuple[KnownToken, ...] = ()
    withdrawn_agents: tuple[str, ...] = ()
    revoked_tokens: tuple[str, ...] = ()
    """Ids; what has one of them as its parent goes too."""
    issuers: tuple[KnownIssuer, ...] = ()
    assertion_key: AssertionKey | None = None
    """The new one; None leaves it as it was."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The whole table at one revision of one epoch."""

    epoch: str
    revision: int
    upstreams: tuple[Upstream, ...] = ()
    agents: tuple[KnownAgent, ...] = ()
    tokens: tuple[KnownToken, ...] = ()
    issuers: tuple[KnownIssuer, ...] = ()
    assertion_key: AssertionKey | None = None


@dataclass(slots=True)
class UpstreamTable:
    """A mutable table with one rule: revisions come one by one, or the holder asks for a snapshot."""

    epoch: str = ""
    revision: int = 0
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    agents: dict[str, KnownAgent] = field(default_factory=dict)
    tokens: dict[str, KnownToken] = field(default_factory=dict)
    """By SHA-256."""
    token_ids: dict[str, KnownToken] = field(default_factory=dict)
    """The same tokens, by id."""
    issuers: dict[str, KnownIssuer] = field(default_factory=dict)
    """By the value of `iss`."""
    assertion_key: AssertionKey | None = None
    losses: int = field(default=0, compare=False)
    """Counts the changes that may have taken a credential away."""

    def replace(self, snapshot: Snapshot) -> None:
        self.losses += 1
        self.epoch, self.revision = snapshot.epoch, snapshot.revision
        self.upstreams = {upstream.agent_id: upstream for upstream in snapshot.upstreams}
        self.agents = {agent.agent_id: agent for agent in snapshot.agents}
        self.tokens = {token.sha256: token for token in snapshot.tokens}
        self.token_ids = {token.token_id: token for token in snapshot.tokens}
        self.issuers = {issuer.issuer: issuer for issuer in snapshot.issuers}
        self.assertion_key = snapshot.assertion_key

    def apply(self, change: Change) -> bool:
        """Apply the next revision; False, with nothing changed, when it is not the next one."""
        if change.revision != self.revision + 1:
            return False
        self.revision = change.revision
        for agent_id in change.withdrawn_agents:
            self.upstreams.pop(agent_id, None)
            self.agents.pop(agent_id, None)
        self.losses += bool(change.revoked_tokens or change.issuers)
        if change.revoked_tokens:
            self._revoke(frozenset(change.revoked_tokens))
        for agent in change.agents:
            self.agents[agent.agent_id] = agent
            self.upstreams.pop(agent.agent_id, None)
        for upstream in change.upstreams:
            self.upstreams[upstream.agent_id] = upstream
            self.agents.pop(upstream.agent_id, None)
        for token in change.tokens:
            self.tokens[token.sha256] = self.token_ids[token.token_id] = token
        self.issuers |= {issuer.issuer: issuer for issuer in change.issuers}
        self.assertion_key = change.assertion_key or self.assertion_key
        return True

    def snapshot(self) -> Snapshot:
        return Snapshot(
            self.epoch,
            self.revision,
            tuple(self.upstreams.values()),
            tuple(self.agents.values()),
            tuple(self.tokens.values()),
            tuple(self.issuers.values()),
            self.assertion_key,
        )

    def expired_tokens(self, now: datetime) -> tuple[str, ...]:
        """The ids of tokens that can never be used again."""
        return tuple(
            token.token_id for token in self.tokens.values() if token.expires_at is not None and token.expires_at <= now
        )

    def _revoke(self, token_ids: frozenset[str]) -> None:
        """Without these tokens and those that were made with them."""
        for token in tuple(self.tokens.values()):
            if token.token_id in token_ids or token.parent_id in token_ids:
                del self.tokens[token.sha256]
                self.token_ids.pop(token.token_id, None)


@dataclass(frozen=True, slots=True)
class Probe:
    """A relay's answer to "can you reach it over your own path": the agent's status, or why there was none."""

    status: int | None
    ready: bool | None = None
    error: str = ""

    @property
    def live(self) -> bool:
        """200, or 401 from an agent that gates its health path (MIL docs/rest/system.md)."""
        return self.status in (200, 401)


@dataclass(frozen=True, slots=True)
class WakeRefusal:
    """Why an agent is not woken for a request: a sentence and its code, and when to come back."""

    agent_id: str
    reason: str
    code: str
    retry_after_seconds: float


@dataclass(frozen=True, slots=True)
class PeerSeen:
    """A node that a relay's netmap shows: the trigger for one look at Headscale, never a proof."""

    cell_id: str
    node_id: str
    ips: tuple[str, ...]
    tags: tuple[str, ...]
    online: bool


class Relays(Protocol):
    """The control plane's view of all relay workers that hold a link to it."""

    def publish(self, upstream: Upstream) -> None:
        """Make the upstream known to every worker; replaces an earlier one of the same agent."""

    def describe(self, agents: Iterable[KnownAgent]) -> None:
        """Tell every worker of agents that cannot be reached now; replaces their upstreams."""

    async def withdraw(self, agent_id: str, *, within_seconds: float) -> bool:
        """Take the agent away everywhere; True when every connected worker said that nothing of it is in flight."""

    async def probe(self, upstream: Upstream, *, within_seconds: float) -> Probe:
        """Ask one worker to reach the agent over its own path; raises TailnetUnavailable when no worker is linked."""

    def refuse_wake(self, refusal: WakeRefusal) -> None:
        """Answer the requests that workers hold for the agent: it is not woken."""

    def add_token(self, token: KnownToken) -> None: ...

    def revoke_token(self, token_id: str) -> None:
        """Every worker forgets it, and whatever was made with it."""

    def forget_expired(self, now: datetime) -> None:
        """Take tokens away that have expired: every worker refuses them anyway, and has them no longer to hold."""

    def trust(self, issuers: Iterable[KnownIssuer], assertion_key: AssertionKey | None) -> None:
        """Accept JWTs of these issuers with these keys, in place of what the same issuers had; None keeps the key."""
