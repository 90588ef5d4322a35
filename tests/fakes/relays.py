"""Relays in memory: what upstreams.Relays promises, on one table, with a probe that a test decides about."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

from elizacloud.errors import TailnetUnavailable
from elizacloud.upstreams import (
    AssertionKey,
    Change,
    KnownAgent,
    KnownIssuer,
    KnownToken,
    Probe,
    Upstream,
    UpstreamTable,
    WakeRefusal,
)

LEAVING = frozenset({"deleting", "tombstone", "gone"})


class FakeRelays:
    """`reach` plays the agent at the other end of a probe. `idle` says whether a withdrawal finds nothing in flight."""

    def __init__(self, reach: Callable[[Upstream], Probe] = lambda upstream: Probe(200, True)) -> None:
        self.reach = reach
        self.linked = True
        self.idle = True
        self.table = UpstreamTable(epoch="fake")
        self.probed: list[Upstream] = []
        self.refusals: list[WakeRefusal] = []

    def publish(self, upstream: Upstream) -> None:
        self._apply(Change(self.table.revision + 1, upstreams=(upstream,)))

    def describe(self, agents: Iterable[KnownAgent]) -> None:
        self._apply(Change(self.table.revision + 1, agents=tuple(agents)))

    async def withdraw(self, agent_id: str, *, within_seconds: float) -> bool:
        known = self.table.agents.get(agent_id)
        if known is None or known.state in LEAVING:
            self._apply(Change(self.table.revision + 1, withdrawn_agents=(agent_id,)))
        return self.idle

    async def probe(self, upstream: Upstream, *, within_seconds: float) -> Probe:
        if not self.linked:
            raise TailnetUnavailable("cannot probe the agent: no relay worker is linked")
        self.probed.append(upstream)
        return self.reach(upstream)

    def refuse_wake(self, refusal: WakeRefusal) -> None:
        self.refusals.append(refusal)

    def add_token(self, token: KnownToken) -> None:
        self._apply(Change(self.table.revision + 1, tokens=(token,)))

    def revoke_token(self, token_id: str) -> None:
        self._apply(Change(self.table.revision + 1, revoked_tokens=(token_id,)))

    def forget_expired(self, now: datetime) -> None:
        self._apply(Change(self.table.revision + 1, revoked_tokens=self.table.expired_tokens(now)))

    def trust(self, issuers: Iterable[KnownIssuer], assertion_key: AssertionKey | None) -> None:
        self._apply(Change(self.table.revision + 1, issuers=tuple(issuers), assertion_key=assertion_key))

    def _apply(self, change: Change) -> None:
        assert self.table.apply(change)
