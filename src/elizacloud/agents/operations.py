"""What an owner can do with agents. Every one of these writes down what is wanted and wakes the driver; none acts itself.

Another owner's agent is not found. Each call is safe to repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from pydantic import SecretStr

from elizacloud.agents.budget import HOUR_SECONDS, MINUTE_SECONDS, Budget
from elizacloud.agents.drive import Driver
from elizacloud.agents.environment import environment_of
from elizacloud.agents.idle.policy import check_policy
from elizacloud.agents.idle.waking import OnlyPolled
from elizacloud.agents.parts import Parts
from elizacloud.agents.quota import check_quota
from elizacloud.agents.sharing.elsewhere import HANDOVER_SECONDS, Elsewhere
from elizacloud.agents.steps.resting import is_only_polled
from elizacloud.agents.together import closing
from elizacloud.agents.wishes import checked_spec
from elizacloud.errors import Conflict, Invalid, NotFound, RuntimeRefused, TooMany
from elizacloud.model import Agent, AgentSpec, Event, Generation, checked_agent_name, new_agent_id
from elizacloud.runtime.protocol import InstanceSecrets, Usage
from elizacloud.states import WAKEABLE, State, Wanted
from elizacloud.store import Record

Expected = asyncio.Future[InstanceSecrets] | asyncio.Future[InstanceSecrets | None]
"""The secrets of an agent that is started by hand, from the control plane that drives it."""
_IDS_TRIED = 500
_PAGE = 500
_TRIES = 50
"""An agent on its way is saved about ten times, and each of these may overtake what its owner says meanwhile."""
_RESTARTABLE = frozenset({State.KEYED, State.STARTED, State.JOINED, State.READY, State.PAUSING, State.PAUSED})
_JOINED = frozenset({State.JOINED, State.READY, State.PAUSING, State.PAUSED})


@dataclass(frozen=True, slots=True)
class Listed:
    """Some of an owner's agents, newest first; `next` is the cursor of the next page."""

    records: tuple[Record, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """An agent after a change. `environment` is for an agent that is started by hand, and is shown this once."""

    record: Record
    environment: dict[str, SecretStr] | None = None


class Operations:
    def __init__(self, parts: Parts, driver: Driver, elsewhere: Elsewhere | None = None) -> None:
        """`elsewhere` is where other control planes are, if there can be any."""
        self._parts = parts
        self._driver = driver
        self._elsewhere = elsewhere
        self._creating = asyncio.Lock()
        self._creates = Budget(parts.settings.creates_per_minute, within_seconds=MINUTE_SECONDS)
        self._wakes = Budget(parts.settings.owner_wakes_per_hour, within_seconds=HOUR_SECONDS)

    async def create(
        self, owner_id: str, name: str, spec: AgentSpec, *, external: bool = False, agent_id: str | None = None
    ) -> Answer:
        """A new agent, on its way to running. With an `agent_id` that the owner's agent has already: that one.

        Raises Invalid, Conflict `name_taken` or `not_isolated` (the runtime keeps owners apart from nobody), and TooMany
        `too_many_creates`, `quota_agents` or `quota_running`.
        """
        place = self._parts.place
        agent = Agent(
            id=agent_id or self._new_id(),
            owner_id=owner_id,
            name=checked_agent_name(name),
            spec=checked_spec(spec),
            wanted=Wanted.RUNNING,
            state=State.REQUESTED,
            cell_id=place.cell_id,
            host_id=place.host_id,
            external=external,
            created_at=self._parts.now(),
            updated_at=self._parts.now(),
        )
        generation = Generation(agent.id, 1, created_at=self._parts.now())
        async with self._expecting(agent.id, external) as expected:
            async with self._creating:
                if agent_id is not None:
                    # Before the gates: they are for one more agent, and this one was let through.
                    with suppress(NotFound):
                        return Answer(await self.get(agent_id, owner_id))
                self._check_budget(owner_id, "create another agent")
                await check_quota(self._parts.store, self._parts.settings, owner_id, new=True)
                if not external and not place.runtime.isolates:
                    await self._check_alone(owner_id)
                if not external and len(place.host_ids) > 1:
                    agents = await self._parts.store.agents.count_by_host()
                    agent = replace(agent, host_id=place.host_for_new(agents))
                try:
                    await self._parts.store.agents.create(agent, generation, event_reason="requested by its owner")
                except Conflict as conflict:
                    if agent_id is not None and conflict.reason == "agent_exists":
                        return Answer(await self.get(agent_id, owner_id))
                    raise
                self._creates.spend(owner_id)
            self._driver.wake(agent.id)
            return await self._answer(agent.id, owner_id, expected)

    async def get(self, agent_id: str, owner_id: str) -> Record:
        """The agent; NotFound `agent_not_found` when there is none, when it is gone and when it is another owner's."""
        with suppress(NotFound):
            record = await self._parts.journal.load(agent_id)
            if record.agent.owner_id == owner_id and record.agent.state is not State.GONE:
                return record
        raise NotFound("cannot find this agent: check its id and the token's owner", code="agent_not_found")

    async def list(self, owner_id: str, *, after: str | None, limit: int) -> Listed:
        """A page of the owner's agents; NotFound `invalid_cursor` when no earlier page told of it."""
        try:
            page = await self._parts.store.agents.list(owner_id, after=after, limit=limit)
        except Invalid as error:
            raise NotFound(str(error), code="invalid_cursor") from error
        return Listed(page.items, page.next)

    async def change(
        self,
        agent_id: str,
        owner_id: str,
        *,
        name: str | None = None,
        spec: Callable[[AgentSpec], AgentSpec] | None = None,
    ) -> Record:
        """Rename it, or change what it is made of, which takes effect at its next start."""

        def changed(agent: Agent) -> Agent:
            new_name = agent.name if name is None else checked_agent_name(name)
            return replace(agent, name=new_name, spec=agent.spec if spec is None else checked_spec(spec(agent.spec)))

        return await self._write(agent_id, owner_id, "change", "changed by its owner", changed)

    async def start(self, agent_id: str, owner_id: str) -> Answer:
        return await self._want(agent_id, owner_id, Wanted.RUNNING, "start", "its owner wants it to run")

    async def sleep(self, agent_id: str, owner_id: str) -> Answer:
        """Stop it until a request comes for it. Raises Conflict `not_running` for one that is stopped, or started by hand."""
        return await self._rest(agent_id, owner_id, Wanted.ASLEEP, "sleep", "its owner wants it asleep")

    async def pause(self, agent_id: str, owner_id: str) -> Answer:
        """Freeze it until a request comes for it. Raises Conflict as `sleep`, and for one that is asleep."""
        return await self._rest(agent_id, owner_id, Wanted.PAUSED, "pause", "its owner wants it paused")

    async def stop(self, agent_id: str, owner_id: str) -> Answer:
        return await self._want(agent_id, owner_id, Wanted.STOPPED, "stop", "its owner wants it stopped")

    async def restart(self, agent_id: str, owner_id: str) -> Answer:
        """A new run, whatever the present one does. One started by hand that has no usable key gets a new environment.

        Raises TooMany when its owner's quota is full, or when it needs a key and they had too many of late.
        """

        def restarted(agent: Agent) -> Agent:
            state = State.STOPPING if agent.state in _RESTARTABLE else agent.state
            return replace(agent, wanted=Wanted.RUNNING, state=state, failure=None)

        record = await self.get(agent_id, owner_id)
        if record.agent.wanted is not Wanted.RUNNING:
            await self._check_room(owner_id)
        self._spend_key(record)
        async with self._expecting(agent_id, record.agent.external) as expected:
            await self._write(agent_id, owner_id, "restart", "its owner wants it restarted", restarted)
            return await self._answer(agent_id, owner_id, expected)

    async def delete(self, agent_id: str, owner_id: str) -> Record:
        """Final: from now on it goes, through all failures, until nothing is left of it. Again is no error."""

        def deleted(agent: Agent) -> Agent:
            return replace(agent, wanted=Wanted.DELETED, failure=None)

        return await self._write(agent_id, owner_id, "delete", "its owner deleted it", deleted)

    async def wake(self, agent_id: str, poll_gap_seconds: float | None = None) -> None:
        """A request came for an agent that is paused or asleep, or polls with this pause between them; anything else is left
        as it is.

        Raises OnlyPolled, and TooMany when its owner's wakes are used up or no more of theirs may run.
        """
        record = await self._parts.journal.load(agent_id)
        agent = record.agent
        if agent.wanted not in WAKEABLE:
            return
        if poll_gap_seconds is not None and await is_only_polled(self._parts, record, poll_gap_seconds):
            raise OnlyPolled

        def woken(agent: Agent) -> Agent:
            return replace(agent, wanted=Wanted.RUNNING, failure=None) if agent.wanted in WAKEABLE else agent

        self._check_wakes(agent.owner_id)
        await self._check_room(agent.owner_id)
        self._parts.uses.note(agent_id)
        await self._write(agent_id, agent.owner_id, "wake", "a request came for it", woken)
        self._wakes.spend(agent.owner_id)  # one that could not be written is tried again, and costs nothing

    async def wait_until_joined(self, agent_id: str, owner_id: str, *, within_seconds: float) -> Record:
        """The agent once it has joined, or as it is when the time is up or it is to be deleted."""

        def through(agent: Agent) -> bool:
            return agent.state in _JOINED or agent.wanted is Wanted.DELETED

        return await self._wait(agent_id, owner_id, through, within_seconds=within_seconds)

    def logs(self, record: Record, *, tail: int, follow: bool) -> AsyncIterator[str]:
        """Lines of its present instance's output; raises Conflict `no_instance` when there is none to ask."""
        return self._parts.place.runtime.logs(_instance_of(record, "read its logs"), tail=tail, follow=follow)

    async def usage(self, record: Record) -> Usage:
        """What its present instance uses; raises Conflict `no_instance` when there is none that runs."""
        try:
            return await self._parts.place.runtime.usage(_instance_of(record, "measure it"))
        except (RuntimeRefused, NotFound) as error:
            raise Conflict(f"cannot measure it: it does not run ({error})", code="no_instance") from error

    async def events(self, agent_id: str, *, after: int, limit: int) -> Sequence[Event]:
        """Its history after that sequence, oldest first. The caller has looked up the agent."""
        return await self._parts.store.events.after(after, agent_id=agent_id, limit=limit)

    def follow_events(self, agent_id: str, *, after: int) -> AsyncIterator[Event]:
        """Its history after that sequence and on, until closed. The caller has looked up the agent."""
        return self._parts.store.events.subscribe(after, agent_id=agent_id)

    async def idle_policy(self, owner_id: str) -> Mapping[str, Any]:
        """What the owner says about agents that nobody uses, unless one of them says otherwise."""
        return await self._parts.store.owners.idle_policy(owner_id)

    async def set_idle_policy(self, owner_id: str, policy: Mapping[str, Any]) -> None:
        """Raises Invalid. Seen at once for agents that this control plane drives, by others when they next look at theirs."""
        check_policy(policy)
        await self._parts.store.owners.set_idle_policy(owner_id, policy)
        after: str | None = None
        while True:
            page = await self._parts.store.agents.list(owner_id, after=after, limit=_PAGE)
            for record in page.items:
                self._driver.wake(record.agent.id)
            if (after := page.next) is None:
                return

    async def _check_room(self, owner_id: str) -> None:
        """Raise TooMany unless one more of the owner's agents may run."""
        await check_quota(self._parts.store, self._parts.settings, owner_id, new=False)

    async def _rest(self, agent_id: str, owner_id: str, wanted: Wanted, step: str, reason: str) -> Answer:
        agent = (await self.get(agent_id, owner_id)).agent
        if agent.external or agent.wanted is Wanted.STOPPED or (agent.wanted, wanted) == (Wanted.ASLEEP, Wanted.PAUSED):
            why = "it was started by hand" if agent.external else "it is stopped"
            raise Conflict(f"cannot {step} the agent {agent_id}: {why}", code="not_running")
        return await self._want(agent_id, owner_id, wanted, step, reason)

    async def _want(self, agent_id: str, owner_id: str, wanted: Wanted, step: str, reason: str) -> Answer:
        def change(agent: Agent) -> Agent:
            return agent if agent.wanted is wanted else replace(agent, wanted=wanted, failure=None)

        by_hand = False
        if wanted is Wanted.RUNNING:
            record = await self.get(agent_id, owner_id)
            by_hand = record.agent.external
            if record.agent.wanted is not wanted:
                await self._check_room(owner_id)
                self._spend_key(record)
        async with self._expecting(agent_id, by_hand) as expected:
            await self._write(agent_id, owner_id, step, reason, change)
            return await self._answer(agent_id, owner_id, expected)

    async def _write(
        self, agent_id: str, owner_id: str, step: str, reason: str, change: Callable[[Agent], Agent]
    ) -> Record:
        """Change the agent by compare-and-set, tell the relays, and wake the driver."""
        for _ in range(_TRIES):
            record = await self.get(agent_id, owner_id)
            changed = change(record.agent)
            if changed == record.agent:
                break
            if record.agent.wanted is Wanted.DELETED:
                raise Conflict(f"cannot change the agent {agent_id}: it is being deleted", code="deleting")
            try:
                saved = await self._parts.store.agents.save(changed, step=step, reason=reason)
            except Conflict as conflict:
                if conflict.reason != "stale":
                    raise
                continue
            record = replace(record, agent=saved)
            self._parts.journal.tell(record)
            break
        else:
            raise Conflict(f"cannot change the agent {agent_id}: it changes too fast; try again", code="stale")
        self._driver.wake(agent_id)
        return record

    def _new_id(self) -> str:
        """One that we drive ourselves, if any: its hints need not go far."""
        ids = (new_agent_id() for _ in range(_IDS_TRIED))
        return next((agent_id for agent_id in ids if self._driver.drives(agent_id)), new_agent_id())

    def _check_wakes(self, owner_id: str) -> None:
        wait_seconds = self._wakes.wait_seconds(owner_id)
        if wait_seconds:
            raise TooMany(
                f"cannot wake the agent: its owner's may be woken {self._parts.settings.owner_wakes_per_hour} times an hour; "
                "try later",
                code="too_many_wakes",
                retry_after_seconds=wait_seconds,
            )

    def _spend_key(self, record: Record) -> None:
        """A start of an agent that never joined, or that was archived, costs a key as a create does."""
        if record.generation.node_id is None and record.agent.state is not State.REQUESTED:
            self._check_budget(record.agent.owner_id, "start the agent")
            self._creates.spend(record.agent.owner_id)

    def _check_budget(self, owner_id: str, doing: str) -> None:
        """Each create costs Headscale a key, and a key costs it a bcrypt."""
        wait_seconds = self._creates.wait_seconds(owner_id)
        if wait_seconds:
            raise TooMany(
                f"cannot {doing} now: its owner's agents took as many keys as they may in a minute; try later",
                code="too_many_creates",
                retry_after_seconds=wait_seconds,
            )

    async def _check_alone(self, owner_id: str) -> None:
        if await self._parts.store.agents.has_others(owner_id):
            raise Conflict(
                f"cannot create an agent for a second owner: the {self._parts.place.runtime.kind} runtime does not keep "
                "owners apart; use the docker runtime",
                code="not_isolated",
            )

    @asynccontextmanager
    async def _expecting(self, agent_id: str, by_hand: bool) -> AsyncIterator[Expected | None]:
        """Inside the block the next secrets of an agent that is started by hand are waited for: from before whoever drives it
        hears what its owner wants."""
        expected = await self._expect(agent_id) if by_hand else None
        try:
            yield expected
        finally:
            if expected is not None:
                expected.cancel()
                self._parts.handover.give_up(agent_id, expected)

    async def _expect(self, agent_id: str) -> Expected:
        if self._elsewhere is None or self._driver.drives(agent_id):
            return self._parts.handover.expect(agent_id)
        return await self._elsewhere.environment(agent_id)

    async def _answer(self, agent_id: str, owner_id: str, expected: Expected | None) -> Answer:
        """The agent as it is now; of one that is started by hand with its environment, if it gets a new one."""
        environment: dict[str, Any] | None = None
        if expected is not None:
            await asyncio.wait({expected}, timeout=HANDOVER_SECONDS)
            if expected.done() and not expected.cancelled() and (secrets := expected.result()) is not None:
                environment = environment_of(agent_id, self._parts.place, secrets)
        return Answer(await self.get(agent_id, owner_id), environment)

    async def _wait(
        self, agent_id: str, owner_id: str, through: Callable[[Agent], bool], *, within_seconds: float
    ) -> Record:
        after = await self._parts.store.events.last_sequence()
        record = await self.get(agent_id, owner_id)
        if through(record.agent) or within_seconds <= 0:
            return record
        events = self._parts.store.events.subscribe(after, agent_id=agent_id)
        with suppress(TimeoutError):
            async with asyncio.timeout(within_seconds), closing(events):
                async for _ in events:
                    record = await self.get(agent_id, owner_id)
                    if through(record.agent):
                        break
        return record


def _instance_of(record: Record, what: str) -> str:
    run = record.run
    if record.agent.external or run is None or run.runtime_ref is None:
        why = "it was started by hand" if record.agent.external else "it has no instance yet"
        raise Conflict(f"cannot {what}: {why}", code="no_instance")
    return run.runtime_ref
