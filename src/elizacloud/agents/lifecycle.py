"""The agents' half of a control plane, put together: give it a store, a place and the relays, and `run` it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from random import Random

import structlog

from elizacloud.agents.backoff import backoff_seconds
from elizacloud.agents.containers import Containers
from elizacloud.agents.drive import Driver
from elizacloud.agents.hints import Hints
from elizacloud.agents.idle.uses import Uses
from elizacloud.agents.idle.waking import Waking
from elizacloud.agents.journal import Journal
from elizacloud.agents.lookout import Lookout
from elizacloud.agents.metrics import Metrics, measured
from elizacloud.agents.operations import Operations
from elizacloud.agents.oversight import Oversight
from elizacloud.agents.parts import Parts
from elizacloud.agents.place import Place
from elizacloud.agents.reconcile.observe import look_outside
from elizacloud.agents.reconcile.past import Memory, PastFile, Remembered
from elizacloud.agents.reconcile.sweep import Sweeper
from elizacloud.agents.shared_look import SharedLook
from elizacloud.agents.sharing.elsewhere import Elsewhere
from elizacloud.agents.sharing.follower import Follower
from elizacloud.agents.sharing.hold import Alone
from elizacloud.agents.sharing.leases import Leases
from elizacloud.agents.sharing.relays import SharedRelays
from elizacloud.agents.together import closing
from elizacloud.errors import Error, Misconfigured
from elizacloud.model import Cell, Host, utc_now
from elizacloud.runtime.protocol import Phase
from elizacloud.settings import Settings
from elizacloud.store import Store
from elizacloud.upstreams import PeerSeen, Relays

log = structlog.get_logger()

_OUTSIDE_GAP_SECONDS = 1.0


class Lifecycle:
    """`operations`, `containers` and `oversight` are for the API; `peer_seen`, `wake`, `used` for the link to the relays."""

    def __init__(
        self,
        store: Store,
        place: Place,
        relays: Relays,
        settings: Settings,
        *,
        now: Callable[[], datetime] = utc_now,
        random: Random | None = None,
        past: PastFile | None = None,
        leases: Leases | None = None,
    ) -> None:
        """With `leases` there may be other control planes on the store, and `relays` are SharedRelays."""
        self._random = random or Random()
        self.metrics = metrics = Metrics()
        place = replace(place, headscale=measured(place.headscale, metrics))
        self.memory = Memory(past or Remembered(), store, place.headscale)
        self._parts = parts = Parts(
            store=store,
            place=place,
            relays=relays,
            settings=settings,
            now=now,
            journal=Journal(store, relays, metrics),
            lookout=Lookout(place.headscale, poll_seconds=settings.poll_seconds),
            outside=SharedLook(lambda: look_outside(place), gap_seconds=_OUTSIDE_GAP_SECONDS),
            memory=self.memory,
            metrics=metrics,
            uses=Uses(now),
        )
        if place.hosts is not None:
            for host_id in place.hosts.ids:
                metrics.host_answers.labels(host_id).set_function(partial(place.hosts.answers, host_id))
        self._leases = leases
        holds = leases or Alone()
        self._driver = Driver(parts, holds=holds, random=self._random)
        self._hints = Hints(self._driver.wake, metrics.hints_held.inc)
        self.sweeper = Sweeper(parts, self._suspect, holds=holds, random=self._random)
        self._follower: Follower | None = None
        self._elsewhere: Elsewhere | None = None
        if leases is not None:
            assert isinstance(relays, SharedRelays)
            self._follower = Follower(parts, leases, relays, self._driver.wake, self._random)
            self._elsewhere = Elsewhere(parts, leases, self.sweeper, self._driver.wake, leases.me)
            metrics.leases.set_function(lambda: len(leases.held))
            metrics.members.set_function(lambda: len(leases.seen_members()))
        self.operations = Operations(parts, self._driver, self._elsewhere)
        self._waking = Waking(self.operations.wake, relays)
        self.containers = Containers(parts, self._driver, self._hints, self._follower)
        self.oversight = Oversight(parts, self.sweeper, holds, self._elsewhere)

    @property
    def checks(self) -> dict[str, Callable[[], Awaitable[object]]]:
        """What has to work, by name, so that agents can be driven; each returns or raises an Error."""
        place = self._parts.place
        return {
            "store": self._parts.store.ping,
            "headscale": self._check_headscale,
            "runtime": place.check_runtime,
        }

    async def prepare(self) -> None:
        """Make the place known to the store, and look whether the store went back in time; before the first agent.

        Raises Misconfigured while agents live on a host that this place has not.
        """
        store, place = self._parts.store, self._parts.place
        await store.places.ensure_cell(Cell(place.cell_id, place.cell_id))
        for host_id in place.host_ids:
            await store.places.ensure_host(Host(host_id, host_id, place.runtime.kind))
        for host_id, agents in (await store.agents.count_by_host()).items():
            if host_id not in place.host_ids:
                raise Misconfigured(
                    f"cannot drive what lives on the host {host_id!r} (agents: {agents}): no setting says where it is; name it "
                    "in docker_hosts again, and delete its agents before you take its name out"
                )
        await self.memory.check_store()

    async def tell_relays(self) -> None:
        """Make all agents known to the relays; before the first relay is let in, so that none sees half of them."""
        if self._follower is not None:
            await self._follower.begin()
        for record in await self._parts.store.agents.records():
            self._parts.journal.tell(record)

    async def run(self) -> None:
        """Drive all agents until cancelled; begins where the last control plane stopped."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._driver.run(), name="drive agents")
            tasks.create_task(self._watch_runtime(), name="watch the runtime")
            tasks.create_task(self._waking.run(), name="wake agents")
            tasks.create_task(self.sweeper.run(), name="sweep")
            if self._leases is not None and self._follower is not None and self._elsewhere is not None:
                tasks.create_task(self._elsewhere.run(), name="answer other control planes")
                tasks.create_task(self._follower.run(), name="follow other control planes")
                tasks.create_task(
                    self._leases.run(self._driver.taken, self.metrics.lease_losses.inc), name="keep leases"
                )

    def peer_seen(self, peer: PeerSeen) -> None:
        """A relay's netmap shows or changed a node."""
        agent_id = self._parts.lookout.saw(peer)
        if agent_id is not None:
            self._hints.hint(agent_id)

    def wake(self, agent_id: str, poll_gap_seconds: float | None = None) -> None:
        """A relay holds a request, or a poll of a series, for an agent that is paused or asleep."""
        self._waking.ask(agent_id, poll_gap_seconds)

    def used(self, agent_id: str) -> None:
        """A relay's workers do something for it that matters."""
        self._parts.uses.note(agent_id)
        if self._follower is not None:
            self._follower.used(agent_id)

    async def _check_headscale(self) -> None:
        await self._parts.place.headscale.health()
        if self.memory.refusal:
            await self.memory.check_headscale()

    def _suspect(self, agent_id: str) -> None:
        if self._follower is not None:
            self._follower.suspect(agent_id)
        else:
            self._driver.wake(agent_id, suspected=True)

    async def _watch_runtime(self) -> None:
        """Look at an agent as soon as its instance changes. A hint only: the sweep sees what is missed here."""
        failures = 0
        while True:
            known: set[str] = set()
            try:
                async with closing(self._parts.place.runtime.watch()) as changes:
                    async for instance in changes:
                        failures = 0
                        # A watch begins with all there is, and of one that simply runs nothing has to be looked at.
                        is_news = instance.phase is not Phase.RUNNING or instance.ref in known
                        known.add(instance.ref)
                        if is_news and instance.labels.installation_id == self._parts.place.installation_id:
                            self._driver.wake(instance.labels.agent_id)
                        if instance.phase is Phase.EXITED:
                            known.discard(instance.ref)
            except Error as error:
                log.warning("cannot watch the runtime", reason=str(error))
            failures += 1
            await asyncio.sleep(backoff_seconds(failures, self._random.random()))
