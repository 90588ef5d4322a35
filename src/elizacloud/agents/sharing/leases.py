"""Keeps this control plane's leases: one UPDATE a second renews them all, then `shards.plan` says which to take and give up.

When the database does not answer, leases end and all work stops until it does: agents that are ready stay reachable through
the relays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from contextlib import suppress

import structlog

from elizacloud.agents.sharing.hold import NEEDED_SECONDS, Hold
from elizacloud.agents.sharing.shards import MEMBER, SHARED, SWEEPS, members, plan, shard_of
from elizacloud.errors import Error
from elizacloud.store import Leases as StoredLeases

LEASE_SECONDS = 8.0
BEAT_SECONDS = 1.0
SHARED_CALL_SECONDS = NEEDED_SECONDS
"""The deadline of a call to Headscale then: it is over before the lease that it began under."""
LEAVE_SECONDS = 5.0
"""How long what runs under a lease that is to be given up may take to end by itself."""

log = structlog.get_logger()


class Leases:
    """`run` it once. `me` has to differ at every start. Implements Holds."""

    def __init__(
        self,
        store: StoredLeases,
        me: str,
        *,
        lease_seconds: float = LEASE_SECONDS,
        beat_seconds: float = BEAT_SECONDS,
        needed_seconds: float = NEEDED_SECONDS,
    ) -> None:
        self.me = me
        self._members: frozenset[str] = frozenset({me})
        self._store = store
        self._lease_seconds = lease_seconds
        self._beat_seconds = beat_seconds
        self._needed_seconds = needed_seconds
        self._held: dict[str, Hold] = {}
        self._leaving: dict[str, float] = {}
        """By name: until when (time of the loop) what runs under it may go on."""
        self._new: list[str] = []
        """Taken, or kept after all, and nobody was told yet: also by a beat that was cut off in the middle, since a slow database
        is no reason to leave their agents to nobody."""
        self._leading = asyncio.Event()

    @property
    def held(self) -> tuple[str, ...]:
        """The names of those that this control plane has, its own one left out. From any thread."""
        return tuple(self._held)

    def seen_members(self) -> frozenset[str]:
        """The control planes that ran at the last look."""
        return self._members

    def of(self, agent_id: str) -> Hold | None:
        return self._of(shard_of(agent_id))

    def lead(self) -> Hold | None:
        return self._of(SWEEPS)

    async def leading(self) -> Hold:
        while (hold := self._of(SWEEPS)) is None:
            self._leading.clear()
            await self._leading.wait()
        return hold

    async def run(self, taken: Callable[[Collection[str]], None], lost: Callable[[], None] = lambda: None) -> None:
        """Until cancelled; gives everything up at the end. `taken` is told which shards have become ours, and `lost` of each
        lease that ended before it was given up."""
        well = True
        try:
            while True:
                try:
                    async with asyncio.timeout(self._lease_seconds / 2):
                        await self._beat(lost)
                    well = True
                except (Error, TimeoutError) as error:
                    if well:
                        log.warning("cannot renew the leases", reason=str(error) or "the database is too slow")
                    well = False
                if self._new:
                    log.info("leases taken", leases=self._new)
                    taken(self._new)
                    self._new = []
                await asyncio.sleep(self._beat_seconds)
        finally:
            await self._give_all_up()

    async def _beat(self, lost: Callable[[], None]) -> None:
        now = asyncio.get_running_loop().time
        sent = now()
        renewed = {fence.name: fence for fence in await self._store.renew(self.me, self._lease_seconds)}
        for name, hold in list(self._held.items()):
            if renewed.get(name) == hold.fence:
                hold.keep(sent + self._lease_seconds)
            if renewed.get(name) != hold.fence or hold.is_over:
                log.warning("a lease was lost", lease=name)
                lost()
                self._drop(name)
        if f"{MEMBER}{self.me}" not in renewed:
            await self._store.take(f"{MEMBER}{self.me}", self.me, self._lease_seconds)
            await self._store.forget(MEMBER)
        # Ended here, but renewed before that was known: only a new epoch makes it ours again.
        if stray := [name for name in renewed if name in SHARED and name not in self._held]:
            await self._store.give_up(stray, self.me)
        seen = await self._store.look()
        self._members = members(seen) | {self.me}
        planned = plan(seen, self.me)
        await self._leave(planned.give_up)
        for name in planned.take:
            await self._take(name)

    async def _take(self, name: str) -> None:
        sent = asyncio.get_running_loop().time()
        fence = await self._store.take(name, self.me, self._lease_seconds)
        if fence is None:
            return
        self._held[name] = Hold(fence, sent + self._lease_seconds, needed_seconds=self._needed_seconds)
        self._new.append(name)
        if name == SWEEPS:
            self._leading.set()

    async def _leave(self, surplus: Collection[str]) -> None:
        """Give up what is over the fair share, once nothing runs under it."""
        now = asyncio.get_running_loop().time()
        self._leaving = {name: self._leaving.get(name, now + LEAVE_SECONDS) for name in surplus if name in self._held}
        for name, hold in self._held.items():
            if hold.is_leaving and name not in self._leaving:
                self._new.append(name)  # kept after all: whoever was woken meanwhile was left to another one
            hold.is_leaving = name in self._leaving
        if free := [name for name, until in self._leaving.items() if self._held[name].is_idle or now >= until]:
            log.info("leases given up", leases=free)
            for name in free:
                self._drop(name)
            await self._store.give_up(free, self.me)

    async def _give_all_up(self) -> None:
        names = [*self._held, f"{MEMBER}{self.me}"]
        for name in list(self._held):
            self._drop(name)
        with suppress(Error, TimeoutError):
            async with asyncio.timeout(self._lease_seconds / 4):
                await self._store.give_up(names, self.me)

    def _drop(self, name: str) -> None:
        self._held.pop(name).end()

    def _of(self, name: str) -> Hold | None:
        hold = self._held.get(name)
        return None if hold is None or hold.is_over or hold.is_leaving else hold
