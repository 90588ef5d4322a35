"""Every change of an agent goes through here: written by compare-and-set, logged once, and told to the relays.

A fact that was learnt outside (a key's id, a node's id) is written whatever happened meanwhile, or it would leak. A move is
made only if the agent is still where the step found it.
"""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Any

import structlog

from elizacloud.agents.metrics import Metrics
from elizacloud.agents.told import known_agent, told_of
from elizacloud.errors import Conflict
from elizacloud.model import Generation, Run
from elizacloud.states import State, Wanted
from elizacloud.store import Fence, Record, Store
from elizacloud.upstreams import KnownAgent, Relays, Upstream

log = structlog.get_logger()

_TRIES = 5


class Overtaken(Exception):
    """The agent was moved by somebody else meanwhile; the facts are written. Look at the table of states again."""


class Journal:
    def __init__(self, store: Store, relays: Relays, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._relays = relays
        self._told: dict[str, Upstream | KnownAgent] = {}
        self._fence: Fence | None = None

    def under(self, fence: Fence | None) -> Journal:
        """The same journal, whose writes count only while the lease of this fence is held."""
        fenced = copy(self)
        fenced._fence = fence
        return fenced

    async def load(self, agent_id: str) -> Record:
        """The agent with its present generation and run; NotFound when there is none."""
        return await self._store.agents.record(agent_id)

    async def save(
        self,
        record: Record,
        *,
        step: str,
        to: State | None = None,
        reason: str = "",
        seconds: float | None = None,
        generation: Generation | None = None,
        run: Run | None = None,
        **changes: Any,
    ) -> Record:
        """Write the facts and, if the agent is still in the state of `record`, the move and the changes to it.

        Raises Overtaken after it wrote the facts of an agent that is elsewhere by now, and what Store.agents.save raises:
        LeaseLost, with nothing written, when another control plane drives the agent by now.
        """
        current, overtaken = record, False
        for _ in range(_TRIES):
            agent = current.agent
            if generation is not None and not overtaken and generation.number != agent.generation:
                agent = replace(agent, generation=generation.number, run=0)
            if run is not None and not overtaken:
                agent = replace(agent, run=run.number)
            if not overtaken:
                agent = replace(agent, state=to or agent.state, **changes)
            try:
                saved = await self._store.agents.save(
                    agent,
                    step=step,
                    reason="" if overtaken else reason,
                    seconds=seconds,
                    generation=generation,
                    run=run,
                    fence=self._fence,
                )
            except Conflict as conflict:
                if conflict.reason != "stale":
                    raise
                current = await self.load(record.agent.id)
                overtaken = not _same_place(current, record)
                continue
            if overtaken:
                raise Overtaken
            after_run = run or (current.run if saved.generation == current.agent.generation else None)
            after = Record(saved, generation or current.generation, after_run)
            self._log(record, after, step, reason, seconds)
            if seconds is not None:
                self._metrics.step_seconds.labels(step).observe(seconds)
            self.tell(after)
            return after
        raise Conflict(f"cannot write the agent {record.agent.id}: it changes too fast; try again", code="stale")

    async def want(self, record: Record, wanted: Wanted, *, step: str, reason: str) -> None:
        """Want something else of the agent, not on its owner's word: raises Overtaken when anybody wrote it meanwhile."""
        agent = replace(record.agent, wanted=wanted, failure=None)
        try:
            saved = await self._store.agents.save(agent, step=step, reason=reason, fence=self._fence)
        except Conflict as conflict:
            if conflict.reason != "stale":
                raise
            raise Overtaken from None
        after = replace(record, agent=saved)
        self._log(record, after, step, reason, None)
        self.tell(after)

    def tell(self, record: Record) -> None:
        """Make the relays know the agent as it is now; nothing is sent when they know it already."""
        agent_id, told = record.agent.id, told_of(record)
        if told is None or self._told.get(agent_id) == told:
            return
        self._told[agent_id] = told
        if isinstance(told, Upstream):
            self._relays.publish(told)
        else:
            self._relays.describe([told])

    def leave(self, record: Record) -> None:
        """Tell it, also of an agent that is being deleted: its description is what a withdrawal takes away then."""
        agent = record.agent
        if told_of(record) is None:
            self._told.pop(agent.id, None)
            self._relays.describe([known_agent(agent)])
        else:
            self.tell(record)

    async def withdraw(self, record: Record, *, within_seconds: float) -> bool:
        """Take the agent away from the relays; True when every worker said in time that nothing of it is in flight.

        Described first: it tells callers why they have to wait, or, when it is being deleted, is withdrawn too.
        """
        self.leave(record)
        return await self._relays.withdraw(record.agent.id, within_seconds=within_seconds)

    def _log(self, before: Record, after: Record, step: str, reason: str, seconds: float | None) -> None:
        if before.agent.state is after.agent.state and not reason:
            return
        facts: dict[str, Any] = {"reason": reason} if reason else {}
        if seconds is not None:
            facts["seconds"] = round(seconds, 3)
        log.info(
            step,
            agent=after.agent.id,
            state_from=before.agent.state.value,
            state_to=after.agent.state.value,
            generation=after.agent.generation,
            run=after.agent.run,
            **facts,
        )


def _same_place(now: Record, then: Record) -> bool:
    """True when only what the owner may change at any time (name, wanted state) can differ."""
    return (now.agent.state, now.agent.generation, now.agent.run) == (
        then.agent.state,
        then.agent.generation,
        then.agent.run,
    )
