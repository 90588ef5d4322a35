"""Makes known here what other control planes wrote: to our driver what owners want of our agents, to our relays the rest.

Events are a log in the order of commits, so nothing is left out: NOTIFY wakes the reader at once, and a poll stands behind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random

import structlog

from elizacloud.agents.backoff import backoff_seconds
from elizacloud.agents.parts import Parts
from elizacloud.agents.sharing.hold import Holds
from elizacloud.agents.sharing.relays import SharedRelays
from elizacloud.agents.together import closing
from elizacloud.errors import Error, NotFound
from elizacloud.model import Event
from elizacloud.states import State
from elizacloud.store.hints import Hint

POLL_SECONDS = 5.0
UNTIDY_GAP_SECONDS = 1.0
"""So often at most the leader is told that something may have been left outside."""
USES_GAP_SECONDS = 2.0
USES_IN_A_HINT = 200
_WISHES = frozenset({"create", "change", "start", "pause", "sleep", "stop", "restart", "wake", "delete", "rekey"})
"""What events call that which is written by whoever is asked, and done by whoever drives the agent."""

log = structlog.get_logger()


class Follower:
    """`wake(agent_id, suspected=...)` is the driver's. `run` it once."""

    def __init__(
        self, parts: Parts, holds: Holds, relays: SharedRelays, wake: Callable[..., None], random: Random
    ) -> None:
        self._parts = parts
        self._holds = holds
        self._relays = relays
        self._wake = wake
        self._random = random
        self._after: int | None = None
        self._withdrawals: asyncio.Queue[Hint] = asyncio.Queue()
        self._in_use: dict[str, None] = {}
        """Agents that others drive and that were used here since that was last told."""
        parts.store.hints.listen(self._hear)

    async def begin(self) -> None:
        """Follow from here on: before all agents are read for the first time."""
        self._after = await self._parts.store.events.last_sequence()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._relays.run(), name="tell other control planes")
            tasks.create_task(self._follow(), name="follow other control planes")
            tasks.create_task(self._pass_on_uses(), name="tell who uses agents of other control planes")
            tasks.create_task(self._pass_on_untidy(), name="ask the leader to sweep soon")
            while True:
                asked = await self._withdrawals.get()
                tasks.create_task(self._withdraw(asked), name=f"withdraw {asked['agent']} for another")

    def suspect(self, agent_id: str) -> None:
        """Something is odd about the agent: whoever drives it is to look at it."""
        if self._holds.of(agent_id) is not None:
            self._wake(agent_id, suspected=True)
        else:
            self._relays.say("suspect", agent=agent_id)

    def reported(self, agent_id: str) -> None:
        """Its container said here that it joined."""
        if self._holds.of(agent_id) is None:
            self._relays.say("reported", agent=agent_id)

    def used(self, agent_id: str) -> None:
        """Our relays do something for it: whoever drives it must not think that nobody does."""
        if self._holds.of(agent_id) is None:
            self._in_use[agent_id] = None

    def _hear(self, hint: Hint) -> None:
        if hint.get("from") == self._relays.me:
            return
        agent_id = str(hint.get("agent"))
        match hint.get("kind"):
            case "withdraw":
                self._withdrawals.put_nowait(hint)
            case "suspect":
                self._wake(agent_id, suspected=True)
            case "reported":
                self._parts.lookout.reported(agent_id)
                self._wake(agent_id)
            case "untidy":
                self._parts.untidy.set()
            case "used":
                for used in hint["agents"]:
                    self._parts.uses.note(str(used))

    async def _pass_on_untidy(self) -> None:
        """What a step left outside here is for the leader's next sweep, which then comes soon. A new leader sweeps at once."""
        untidy = self._parts.untidy
        while True:
            await untidy.wait()
            if self._holds.lead() is None:
                untidy.clear()
                self._relays.say("untidy")
            await asyncio.sleep(UNTIDY_GAP_SECONDS)

    async def _pass_on_uses(self) -> None:
        while True:
            await asyncio.sleep(USES_GAP_SECONDS)
            agent_ids, self._in_use = list(self._in_use), {}
            for at in range(0, len(agent_ids), USES_IN_A_HINT):
                self._relays.say("used", agents=agent_ids[at : at + USES_IN_A_HINT])

    async def _follow(self) -> None:
        failures = 0
        while True:
            try:
                if self._after is None:
                    await self.begin()
                assert self._after is not None
                events = self._parts.store.events.subscribe(self._after, poll_seconds=POLL_SECONDS)
                async with closing(events):
                    async for event in events:
                        await self._saw(event)
                        self._after, failures = event.sequence, 0
            except Error as error:
                failures += 1
                log.warning("cannot follow other control planes", reason=str(error))
                await asyncio.sleep(backoff_seconds(failures, self._random.random()))

    async def _saw(self, event: Event) -> None:
        if self._holds.of(event.agent_id) is not None:
            if event.step in _WISHES:
                self._wake(event.agent_id)
            return
        try:
            record = await self._parts.journal.load(event.agent_id)
        except NotFound:
            return
        self._parts.journal.leave(record)
        if record.agent.state in (State.DELETING, State.TOMBSTONE, State.GONE):
            await self._relays.here.withdraw(record.agent.id, within_seconds=0)
        if record.agent.state is State.GONE:
            self._parts.forget(record.agent.id)

    async def _withdraw(self, asked: Hint) -> None:
        """Another control plane waits until nothing of the agent is in flight: give our workers' word."""
        agent_id, idle = str(asked["agent"]), False
        try:
            self._parts.journal.leave(await self._parts.journal.load(agent_id))
            idle = await self._relays.here.withdraw(agent_id, within_seconds=float(asked["within"]))
        except Error as error:
            log.warning("cannot withdraw the agent for another control plane", agent=agent_id, reason=str(error))
        self._relays.say("withdrawn", to=asked["from"], number=asked["number"], idle=idle)
