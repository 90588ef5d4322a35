"""Reaching agents: which upstream an agent has now, and connections to it that are checked against the netmap.

The rule: a byte goes to an upstream only if the peer at its address has its node id and its agent's tag, in the relay's
own netmap, when it is written. So the peer is looked at for every request, before a dial and after it; and a change in
the netmap or in the table ends what no longer fits, in the same step of the event loop in which it is seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

import structlog

from elizacloud.errors import Error, NotFound, TailnetUnavailable, TooMany, Unavailable
from elizacloud.relay.counts import Counts
from elizacloud.relay.dialling.dial import AgentDialer
from elizacloud.relay.dialling.pool import Pool
from elizacloud.relay.dialling.shared_dials import SharedDials
from elizacloud.relay.front import PATH_PREFIX
from elizacloud.relay.metrics import Metrics
from elizacloud.relay.unreachable import AgentTimeout, Unroutable
from elizacloud.relay.upstream import UpstreamConnection
from elizacloud.relay.uses import OpenStream, Uses
from elizacloud.relay.wakes import Waker, Wakes
from elizacloud.tailnet.identity import mismatch
from elizacloud.tailnet.netmap import Netmap, Peer, PeerChange
from elizacloud.upstreams import KnownAgent, Upstream, UpstreamTable, WakeRefusal

logger = structlog.get_logger()

PoolKey = tuple[str, int, int]

_RETRY_SECONDS = 2.0


class AgentPool(Pool):
    """Connections to one run of one agent, and the header lines that requests to it carry."""

    def __init__(
        self, upstream: Upstream, dial: Callable[[], Awaitable[UpstreamConnection]], *, most_dials: int
    ) -> None:
        super().__init__(dial)
        self.dials = SharedDials(self, most_dials)
        self.upstream = upstream
        self.peer: Peer | None = None
        """The peer that was found to be the agent, for as long as the netmap has this very one."""
        self.health_target = upstream.health_path.encode("utf-8")
        self.host_line = f"Host: {upstream.ip}:{upstream.port}\r\n".encode("ascii")
        self.prefix_line = b"X-Forwarded-Prefix: " + PATH_PREFIX + upstream.agent_id.encode("ascii") + b"\r\n"
        self.authorization_line = f"Authorization: Bearer {upstream.agent_token.get_secret_value()}\r\n".encode("ascii")

    def give_back(self, connection: UpstreamConnection) -> None:
        super().give_back(connection)
        if self.dials.waiting:
            self.dials.next_turn()


class Reach:
    """One a worker. `netmap` is followed by someone who calls `netmap_changed` in the same step that changed it."""

    def __init__(
        self,
        table: UpstreamTable,
        netmap: Netmap,
        dialer: AgentDialer,
        waker: Waker,
        metrics: Metrics,
        *,
        dial_timeout_seconds: float,
        hold_seconds: float,
        dials_per_agent: int,
    ) -> None:
        self._table = table
        self._netmap = netmap
        self._dialer = dialer
        self._metrics = metrics
        self._dial_timeout_seconds = dial_timeout_seconds
        self._hold_seconds = hold_seconds
        self._dials_per_agent = dials_per_agent
        self._pools: dict[PoolKey, AgentPool] = {}
        self._current: dict[str, AgentPool] = {}
        """For each agent: the pool that was used last."""
        self.uses = Uses(asyncio.get_running_loop().time)
        self.wakes = Wakes(waker, asyncio.get_running_loop().time)
        self._drains = 0
        self._held = Counts()
        self._news: asyncio.Event | None = None

    # Which upstream

    def pool(self, agent_id: str) -> AgentPool | None:
        """The connections to the agent's upstream, if a request may be sent to it at this moment."""
        pool = self._current.get(agent_id)
        if (
            pool is not None
            and pool.upstream is self._table.upstreams.get(agent_id)
            and pool.upstream.routable
            and pool.peer is not None
            and pool.peer is self._netmap.peer_at(pool.upstream.ip)
        ):
            return pool  # neither the upstream nor the peer at its address changed since it was found to be the agent
        upstream = self.ready(agent_id)
        if upstream is None:
            return None
        pool = self._current[agent_id] = self.pool_of(upstream)
        pool.peer = self._netmap.peer_at(upstream.ip)
        return pool

    def ready(self, agent_id: str) -> Upstream | None:
        """The agent's upstream, if a request may be sent to it at this moment."""
        upstream = self._table.upstreams.get(agent_id)
        if upstream is None or not upstream.routable or mismatch(self._netmap, upstream) is not None:
            return None
        return upstream

    def sleeping(self, agent_id: str) -> KnownAgent | None:
        """What is known of it, if a request would wake it."""
        known = self._table.agents.get(agent_id)
        return known if known is not None and known.wakeable else None

    def open_stream(self, agent_id: str, *, upgraded: bool) -> OpenStream:
        """Watches an open stream of the agent; call `stream_ended` of `uses` when it ends."""
        return OpenStream(agent_id, self.uses, self._table, self._wake_for_stream, upgraded=upgraded)

    def _wake_for_stream(self, agent_id: str) -> None:
        with contextlib.suppress(TooMany):  # the stream goes on when the agent wakes by another request
            if self.sleeping(agent_id) is not None:
                self.wakes.ask(agent_id)

    async def soon_ready(
        self, agent_id: str, *, within_seconds: float | None = None, poll_gap_seconds: float | None = None
    ) -> Upstream:
        """Wait for it as long as it is coming up, at most for the hold time; the control plane is asked once to wake it.

        Raises NotFound when the agent is gone, Unavailable `agent_starting`, Unroutable, and when it is not woken TooMany,
        or, for a poll, Unavailable `agent_asleep`.
        """
        self._held.enter(agent_id)
        if self._drains:
            self._tell_news()
        try:
            async with asyncio.timeout(within_seconds or self._hold_seconds):
                while (upstream := self.ready(agent_id)) is None:
                    self._check_coming_up(agent_id, poll_gap_seconds)
                    await self._next_news()
                return upstream
        except TimeoutError:
            raise self._why_not(agent_id) from None
        finally:
            if not self._held.leave(agent_id):
                self.wakes.forget(agent_id)

    def _check_coming_up(self, agent_id: str, poll_gap_seconds: float | None) -> None:
        """Raise unless waiting makes sense."""
        upstream = self._table.upstreams.get(agent_id)
        if upstream is not None:
            # A netmap that is not current yet, or does not have the peer yet, is a matter of moments; another peer at
            # the address is not.
            if self._netmap.known and self._netmap.peer_at(upstream.ip) is not None and upstream.routable:
                raise self._why_not(agent_id)
            return
        known = self._table.agents.get(agent_id)
        if known is not None and known.wakeable:
            self.wakes.ask(agent_id, poll_gap_seconds)
        elif known is None or not known.coming:
            raise self._why_not(agent_id)

    def _why_not(self, agent_id: str) -> Error:
        upstream = self._table.upstreams.get(agent_id)
        if upstream is not None and upstream.routable:
            return self._refusal(upstream, mismatch(self._netmap, upstream) or "it came back a moment ago")
        known = self._table.agents.get(agent_id)
        if upstream is None and known is None:
            return NotFound("cannot find this agent: check its id and the token's owner", code="agent_not_found")
        if upstream is not None or (known is not None and (known.wakeable or known.coming)):
            return Unavailable(
                "cannot reach the agent yet: it is starting; try again in a moment",
                code="agent_starting",
                retry_after_seconds=_RETRY_SECONDS,
            )
        assert known is not None
        return Unroutable(
            f"cannot reach the agent: it is {known.state}{f' ({known.message})' if known.message else ''}; start it first",
            retry_after_seconds=_RETRY_SECONDS,
        )

    # Connections

    def pool_of(self, upstream: Upstream) -> AgentPool:
        key = upstream.pool_key
        pool = self._pools.get(key)
        if pool is not None:
            if pool.upstream is upstream or _same_run(pool.upstream, upstream):
                return pool
            pool.kill("the agent has another address now")
        pool = self._pools[key] = AgentPool(upstream, lambda: self.dial(upstream), most_dials=self._dials_per_agent)
        return pool

    async def connect(self, upstream: Upstream) -> UpstreamConnection:
        """A connection of the agent's pool: a new one, or one that became free first. Raises what `dial` raises."""
        pool = self.pool_of(upstream)
        try:
            connection = await pool.dials.connection(wait_seconds=self._dial_timeout_seconds)
        except TimeoutError:
            raise self._no_answer() from None
        now = self.ready(upstream.agent_id)  # who waited for another's dial may have dialled long after the change
        if connection.epoch != pool.epoch or now is None or not _same_run(now, upstream):
            connection.abort()
            raise self._refusal(upstream, "the netmap or the table changed during the dial")
        return connection

    async def dial(self, upstream: Upstream) -> UpstreamConnection:
        """Connect to the agent and to nobody else. Raises Unroutable, AgentTimeout, Refused, TailnetUnavailable.

        Whoever sends bytes later than in this step of the event loop has to look again: `connect` does.
        """
        self._check_identity(upstream)
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(self._dial_timeout_seconds):
                connection = await self._dialer(upstream.ip, upstream.port)
        except TimeoutError:
            self._metrics.dials["agent_timeout"] += 1
            raise self._no_answer() from None
        except Error as error:
            self._metrics.dials[error.reason] += 1
            raise
        self._metrics.dials["connected"] += 1
        self._metrics.dial_time.observe(asyncio.get_running_loop().time() - began)
        try:
            self._check_identity(upstream)
        except Unavailable:
            connection.abort()
            raise
        return connection

    def _no_answer(self) -> AgentTimeout:
        return AgentTimeout(f"cannot reach the agent: no connection in {self._dial_timeout_seconds:g} s; is it frozen?")

    async def until_peer(self, upstream: Upstream) -> None:
        """Wait until the netmap shows the agent at its address; the caller bounds the time."""
        while mismatch(self._netmap, upstream) is not None:
            await self._next_news()

    def _check_identity(self, upstream: Upstream) -> None:
        reason = mismatch(self._netmap, upstream)
        if reason is not None:
            raise self._refusal(upstream, reason)

    def _refusal(self, upstream: Upstream, reason: str) -> Unavailable:
        """The error for callers; the reason is for logs, since it may name other nodes."""
        if not self._netmap.known:
            return TailnetUnavailable(
                "cannot reach any agent: the relay is not following its tailnet; is its tailscaled running?",
                retry_after_seconds=_RETRY_SECONDS,
            )
        self._metrics.identity_refused += 1
        logger.warning("agent not reached: its peer is not on the tailnet", agent=upstream.agent_id, reason=reason)
        return Unroutable(
            "cannot reach the agent: its node is not on the tailnet where it should be; try again in a moment",
            retry_after_seconds=_RETRY_SECONDS,
        )

    # What changes

    def table_changed(self) -> None:
        """Retire the pools of what was withdrawn, end those of what was replaced, wake who waits."""
        for pool in tuple(self._pools.values()):
            now = self._table.upstreams.get(pool.upstream.agent_id)
            if now is None or not now.routable:
                pool.retire()
            elif not _same_run(pool.upstream, now):
                pool.kill("the agent was started anew")
        self.wakes.settle(self._table)
        self._tell_news()

    def linked_again(self) -> None:
        """The control plane may not have heard who is to be woken."""
        self.wakes.ask_again()

    def wake_refused(self, refusal: WakeRefusal) -> None:
        self.wakes.refused(refusal)
        self._tell_news()

    def netmap_changed(self, changes: tuple[PeerChange, ...]) -> None:
        moved = {change.before.node_id for change in changes if change.before is not None and change.identity}
        if moved or any(change.identity for change in changes):
            for pool in tuple(self._pools.values()):
                reason = mismatch(self._netmap, pool.upstream)
                if reason is not None or pool.upstream.node_id in moved:
                    pool.kill(reason or "the peer has another key now")
        self._tell_news()

    async def _next_news(self) -> None:
        """Wait until something changed that a waiting request or probe could be waiting for."""
        if self._news is None:
            self._news = asyncio.Event()
        await self._news.wait()

    def _tell_news(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None

    # What is in flight

    async def drained(self, agent_id: str, *, within_seconds: float) -> bool:
        """True when nothing of the agent is in flight, False when that took too long, or a request is held for it."""
        self._drains += 1
        self.uses.watched = self._tell_news
        try:
            async with asyncio.timeout(within_seconds):
                while not self.uses.idle(agent_id):
                    if agent_id in self._held:
                        return False
                    await self._next_news()
        except TimeoutError:
            return False
        finally:
            self._drains -= 1
            if not self._drains:
                self.uses.watched = None
        return True

    def connections(self) -> tuple[int, int]:
        """How many to agents are idle, and how many are busy."""
        counts = [pool.connections() for pool in tuple(self._pools.values())]
        return sum(idle for idle, _ in counts), sum(busy for _, busy in counts)

    def sweep(self) -> None:
        """Close connections that were idle for too long and forget pools that are empty and not current."""
        for key, pool in tuple(self._pools.items()):
            pool.sweep()
            now = self._table.upstreams.get(pool.upstream.agent_id)
            if pool.empty and (now is None or now.pool_key != key):
                del self._pools[key]
                if self._current.get(pool.upstream.agent_id) is pool:
                    del self._current[pool.upstream.agent_id]

    def close(self) -> None:
        for pool in tuple(self._pools.values()):
            pool.kill("the relay stops")


def _same_run(one: Upstream, other: Upstream) -> bool:
    """The same run in the same place: connections to the one are to the other."""
    return one.pool_key == other.pool_key and (
        (one.ip, one.port, one.node_id, one.agent_token) == (other.ip, other.port, other.node_id, other.agent_token)
    )
