"""What an owner can do with agents. Every one of these writes down what is wanted and wakes the driver; none acts itself.

Another owner's agent is not found. Each call is safe to repeat.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from pydantic import SecretStr

from elizacloud.agents.budget import Budget
from elizacloud.agents.drive import Driver
from elizacloud.agents.environment import environment_of
from elizacloud.agents.parts import Parts
from elizacloud.agents.together import closing
from elizacloud.agents.wishes import checked_spec
from elizacloud.errors import Conflict, Invalid, NotFound, TooMany
from elizacloud.model import Agent, AgentSpec, Event, Generation, checked_agent_name, new_agent_id
from elizacloud.runtime.protocol import InstanceSecrets
from elizacloud.states import State, Wanted
from elizacloud.store import Record

HANDOVER_SECONDS = 20.0
"""How long a call waits for the environment of an agent that is started by hand."""
_IDS_TRIED = 500
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
    def __init__(self, parts: Parts, driver: Driver) -> None:
        self._parts = parts
        self._driver = driver
        self._creating = asyncio.Lock()
        self._creates = Budget(parts.settings.creates_per_minute)

    async def create(
        self, owner_id: str, name: str, spec: AgentSpec, *, external: bool = False, agent_id: str | None = None
    ) -> Answer:
        """A new agent, on its way to running. With an `agent_id` that the owner's agent has already: that one.

        Raises Invalid, Conflict `name_taken` or `not_isolated` (the runtime keeps owners apart from nobody), and TooMany
        `too_many_creates`.
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
        async with self._creating:
            self._check_budget(owner_id)
            if not external and not place.runtime.isolates:
                await self._check_alone(owner_id)
            expected = self._parts.handover.expect(agent.id) if external else None
            try:
                await self._parts.store.agents.create(agent, generation, event_reason="requested by its owner")
            except Conflict as conflict:
                self._parts.handover.give_up(agent.id)
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
        records = [await self._parts.journal.load(agent.id) for agent in page.items]
        return Listed(tuple(records), page.next)

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

    async def pause(self, agent_id: str, owner_id: str) -> Answer:
        return await self._want(agent_id, owner_id, Wanted.PAUSED, "pause", "its owner wants it paused")

    async def stop(self, agent_id: str, owner_id: str) -> Answer:
        return await self._want(agent_id, owner_id, Wanted.STOPPED, "stop", "its owner wants it stopped")

    async def restart(self, agent_id: str, owner_id: str) -> Answer:
        """A new run, whatever the present one does. One started by hand that has no usable key gets a new environment."""

        def restarted(agent: Agent) -> Agent:
            state = State.STOPPING if agent.state in _RESTARTABLE else agent.state
            return replace(agent, wanted=Wanted.RUNNING, state=state, failure=None)

        expected = await self._expect_if_external(agent_id, owner_id)
        await self._write(agent_id, owner_id, "restart", "its owner wants it restarted", restarted)
        return await self._answer(agent_id, owner_id, expected)

    async def delete(self, agent_id: str, owner_id: str) -> Record:
        """Final: from now on it goes, through all failures, until nothing is left of it. Again is no error."""

        def deleted(agent: Agent) -> Agent:
            return replace(agent, wanted=Wanted.DELETED, failure=None)

        return await self._write(agent_id, owner_id, "delete", "its owner deleted it", deleted)

    async def wake(self, agent_id: str) -> None:
        """A request came for a paused agent; anything else is left as it is."""
        record = await self._parts.journal.load(agent_id)
        if record.agent.wanted is Wanted.PAUSED:
            await self._want(agent_id, record.agent.owner_id, Wanted.RUNNING, "wake", "a request came for it")

    async def wait_until_joined(self, agent_id: str, owner_id: str, *, within_seconds: float) -> Record:
        """The agent once it has joined, or as it is when the time is up or it is to be deleted."""

        def through(agent: Agent) -> bool:
            return agent.state in _JOINED or agent.wanted is Wanted.DELETED

        return await self._wait(agent_id, owner_id, through, within_seconds=within_seconds)

    def logs(self, record: Record, *, tail: int, follow: bool) -> AsyncIterator[str]:
        """Lines of its present instance's output; raises Conflict `no_instance` when there is none to ask."""
        run = record.run
        if record.agent.external or run is None or run.runtime_ref is None:
            why = "it was started by hand" if record.agent.external else "it has no instance yet"
            raise Conflict(f"cannot read its logs: {why}", code="no_instance")
        return self._parts.place.runtime.logs(run.runtime_ref, tail=tail, follow=follow)

    async def events(self, agent_id: str, *, after: int, limit: int) -> Sequence[Event]:
        """Its history after that sequence, oldest first. The caller has looked up the agent."""
        return await self._parts.store.events.after(after, agent_id=agent_id, limit=limit)

    def follow_events(self, agent_id: str, *, after: int) -> AsyncIterator[Event]:
        """Its history after that sequence and on, until closed. The caller has looked up the agent."""
        return self._parts.store.events.subscribe(after, agent_id=agent_id)

    async def _want(self, agent_id: str, owner_id: str, wanted: Wanted, step: str, reason: str) -> Answer:
        def change(agent: Agent) -> Agent:
            return agent if agent.wanted is wanted else replace(agent, wanted=wanted, failure=None)

        expected = await self._expect_if_external(agent_id, owner_id) if wanted is Wanted.RUNNING else None
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
        """One that we drive ourselves, if any: an agent that is started by hand gets its environment from its driver."""
        ids = (new_agent_id() for _ in range(_IDS_TRIED))
        return next((agent_id for agent_id in ids if self._driver.drives(agent_id)), new_agent_id())

    def _check_budget(self, owner_id: str) -> None:
        """Each create costs Headscale a key, and a key costs it a bcrypt."""
        wait_seconds = self._creates.wait_seconds(owner_id)
        if wait_seconds:
            raise TooMany(
                "cannot create another agent now: its owner created as many as one may in a minute; try later",
                code="too_many_creates",
                retry_after_seconds=wait_seconds,
            )

    async def _check_alone(self, owner_id: str) -> None:
        agents = await self._parts.store.agents.list_all()
        if any(agent.owner_id != owner_id and not agent.external for agent in agents):
            raise Conflict(
                f"cannot create an agent for a second owner: the {self._parts.place.runtime.kind} runtime does not keep "
                "owners apart; use the docker runtime",
                code="not_isolated",
            )

    async def _expect_if_external(self, agent_id: str, owner_id: str) -> asyncio.Future[InstanceSecrets] | None:
        record = await self.get(agent_id, owner_id)
        return self._parts.handover.expect(agent_id) if record.agent.external else None

    async def _answer(self, agent_id: str, owner_id: str, expected: asyncio.Future[InstanceSecrets] | None) -> Answer:
        """The agent as it is now; of one that is started by hand with its environment, if it gets a new one."""
        environment: dict[str, Any] | None = None
        if expected is not None:
            try:
                with suppress(TimeoutError, asyncio.CancelledError):
                    async with asyncio.timeout(HANDOVER_SECONDS):
                        environment = environment_of(agent_id, self._parts.place, await expected)
            finally:
                self._parts.handover.give_up(agent_id)
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
