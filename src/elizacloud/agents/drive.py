"""Walks every agent through the table of states: whoever is woken gets a task, never two for one agent.

A wake is only ever a hint to look again, so wakes that come while an agent is at work merge into one more look. A step that
fails is written into the agent with its reason and the time of the next try, which survives a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from weakref import WeakValueDictionary

import structlog

from elizacloud.agents.backoff import LONGEST_SECONDS, backoff_seconds, seconds_until
from elizacloud.agents.journal import Overtaken
from elizacloud.agents.parts import Later, Outcome, Parts, StepFailed, Waiting
from elizacloud.agents.sharing.hold import Alone, Hold, Holds
from elizacloud.agents.sharing.shards import shard_of
from elizacloud.agents.steps import LOOKS, STEPS, rest
from elizacloud.agents.steps.joining import STEADY_PROBE_SECONDS
from elizacloud.agents.turns import Turns
from elizacloud.errors import Conflict, Error, LeaseLost, NotFound, Unavailable
from elizacloud.model import Failure
from elizacloud.states import Due, State, Step, next_step
from elizacloud.store import Record

log = structlog.get_logger()

ACTS_AT_ONCE = 16
ACTS_AT_ONCE_OF_OWNER = 8
"""So that one owner's agents, all of them slow to start, hold up nobody else's."""
ACTS_WITH_FIRST = 64
LOOKS_AT_ONCE = 256
LOOKS_AT_ONCE_OF_OWNER = 128
LOOKS_WITH_FIRST = 512
_LEAST_SECONDS = 0.001
LOOK_SECONDS = 20.0
"""The longest that one look may take; the step itself may be due for as long as the table of states says."""
OUTAGE_SECONDS = 15.0
"""The longest pause before a try after Headscale, the runtime, the relays or the store did not answer."""
_WELL_AGAIN = "a look found nothing wrong with it any more"


@dataclass(slots=True)
class _Place:
    """Where an agent stood when it was last looked at, and since when (time of the loop)."""

    at: tuple[State, int, int]
    since: float


class Driver:
    """`run` it once; `wake` it from anywhere in the same loop. It drives those agents whose lease it holds."""

    def __init__(self, parts: Parts, *, holds: Holds | None = None, random: Random | None = None) -> None:
        self._parts = parts
        self._holds = holds or Alone()
        self._random = random or Random()
        self._taken: set[str] = set()
        self._woken: dict[str, bool] = {}
        """By agent, oldest first: whether something odd was seen about it."""
        self._changed = asyncio.Event()
        self._at_work: set[str] = set()
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        """Those that somebody has or waits for: containers may ask for a turn by any id."""
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._places: dict[str, _Place] = {}
        self._lost: dict[str, int] = {}
        """By agent: how often in a row the store failed it."""
        self._acts = Turns(at_once=ACTS_AT_ONCE, of_owner=ACTS_AT_ONCE_OF_OWNER, with_first=ACTS_WITH_FIRST)
        self._looks = Turns(at_once=LOOKS_AT_ONCE, of_owner=LOOKS_AT_ONCE_OF_OWNER, with_first=LOOKS_WITH_FIRST)

    def drives(self, agent_id: str) -> bool:
        """Whether it is ours to drive, and not another control plane's."""
        return self._holds.of(agent_id) is not None

    def wake(self, agent_id: str, *, suspected: bool = False) -> None:
        """Look at the agent soon. `suspected`: a sweep or a relay saw something odd, so look at its node too."""
        self._woken[agent_id] = self._woken.get(agent_id, False) or suspected
        self._changed.set()

    def wake_in(self, agent_id: str, seconds: float) -> None:
        """Look at the agent in so many seconds, instead of at an earlier set time."""
        self._forget_timer(agent_id)
        # Never so soon that a clock's rounding makes it the same moment, and the same answer, again.
        seconds = max(seconds, _LEAST_SECONDS)
        self._timers[agent_id] = asyncio.get_running_loop().call_later(seconds, self.wake, agent_id)

    @asynccontextmanager
    async def turn(self, agent_id: str) -> AsyncIterator[None]:
        """Nothing else acts for this agent inside the block; it is looked at again after it."""
        async with self._turns.setdefault(agent_id, asyncio.Lock()):
            yield
        self.wake(agent_id)

    def taken(self, shards: Collection[str]) -> None:
        """Agents of these shards are ours to drive from now on."""
        self._taken.update(shards)
        self._changed.set()

    async def run(self) -> None:
        """Until cancelled. Begins with every agent that is not gone."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for record in await self._parts.store.agents.records():
                    self._take_up(record)
                while True:
                    await self._changed.wait()
                    self._changed.clear()
                    if self._taken:
                        tasks.create_task(self._take_up_shards(self._taken), name="take up agents")
                        self._taken = set()
                    for agent_id in [agent_id for agent_id in self._woken if agent_id not in self._at_work]:
                        suspected = self._woken.pop(agent_id)
                        if (hold := self._holds.of(agent_id)) is not None:
                            self._at_work.add(agent_id)
                            tasks.create_task(self._work(agent_id, suspected, hold), name=f"agent {agent_id}")
                        else:
                            self._forget(agent_id)
        finally:
            for agent_id in list(self._timers):
                self._forget_timer(agent_id)

    async def _take_up_shards(self, shards: Collection[str]) -> None:
        try:
            records = await self._parts.store.agents.records()
        except Error as error:
            log.warning("cannot take up agents", reason=str(error))
            asyncio.get_running_loop().call_later(OUTAGE_SECONDS / 5, self.taken, shards)
            return
        for record in records:
            if shard_of(record.agent.id) in shards:
                self._places.pop(record.agent.id, None)
                self._take_up(record)

    def _take_up(self, record: Record) -> None:
        """After a start of the control plane: relays are told again, and whatever was due is done."""
        agent = record.agent
        self._parts.journal.tell(record)
        self._parts.uses.note(agent.id)
        if agent.state is State.READY and agent.agent_ready and next_step(agent.state, agent.wanted) is None:
            # The first sweep finds what happened to it meanwhile; probes of all at once would be a crowd.
            self.wake_in(agent.id, self._random.random() * STEADY_PROBE_SECONDS)
        elif agent.failure is not None and agent.failure.retry_at is not None:
            self.wake_in(agent.id, seconds_until(agent.failure.retry_at, self._parts.now()))
        else:
            self.wake(agent.id)

    async def _work(self, agent_id: str, suspected: bool, hold: Hold) -> None:
        self._forget_timer(agent_id)
        try:
            async with hold.under(), self._turns.setdefault(agent_id, asyncio.Lock()):
                seconds = await self._advance(self._parts.under(hold), agent_id, suspected)
            self._lost.pop(agent_id, None)
        except LeaseLost as lost:
            log.info("left to another control plane", agent=agent_id, reason=str(lost))
            self._parts.untidy.set()
            seconds = 1.0  # unless the lease is kept after all
        except Error as error:
            # Not even the failure could be written: nothing is known, so look again, later each time.
            log.warning("cannot drive the agent", agent=agent_id, reason=str(error))
            self._parts.untidy.set()
            self._lost[agent_id] = self._lost.get(agent_id, 0) + 1
            seconds = min(OUTAGE_SECONDS, backoff_seconds(self._lost[agent_id], self._random.random()))
        except Exception:
            log.exception("a step has a bug", agent=agent_id)
            seconds = backoff_seconds(10, self._random.random())
        finally:
            self._at_work.discard(agent_id)
            if agent_id in self._woken:
                self._changed.set()
        if seconds is not None:
            self.wake_in(agent_id, seconds)

    async def _advance(self, parts: Parts, agent_id: str, suspected: bool) -> float | None:
        """Take steps until there is nothing to do now; returns in how many seconds to look again."""
        while True:
            try:
                record = await parts.journal.load(agent_id)
            except NotFound:
                self._forget(agent_id)
                return None
            if record.agent.state is State.GONE:
                self._forget(agent_id)
                return None
            due = next_step(record.agent.state, record.agent.wanted)
            if due is not None and (held := self._held_seconds(record, due)) is not None:
                return held
            try:
                outcome = await self._step(parts, record, due, suspected)
            except Overtaken:
                continue
            except Conflict as conflict:
                if conflict.reason != "stale":
                    return await self._fail(parts, agent_id, due, conflict)
                continue
            except LeaseLost:
                raise
            except TimeoutError:
                if due is None:  # it is where it is wanted, and nothing more is known
                    return parts.settings.poll_seconds
                late = StepFailed("it took too long", code="step_timeout")
                return await self._fail(parts, agent_id, due, late)
            except Error as error:
                return await self._fail(parts, agent_id, due, error)
            suspected = False
            if isinstance(outcome, Later):
                return outcome.seconds

    async def _step(self, parts: Parts, record: Record, due: Due | None, suspected: bool) -> Outcome:
        waiting = self._waiting(record, due)
        if due is None or due.step in LOOKS:
            async with self._looks.turn(record.agent.owner_id), asyncio.timeout(LOOK_SECONDS):
                if due is None:
                    outcome = await rest(parts, record, suspected=suspected)
                    if isinstance(outcome, Later) and not outcome.blind and record.agent.failure is not None:
                        await parts.journal.save(record, step="check", reason=_WELL_AGAIN, failure=None)
                    return outcome
                return await STEPS[due.step](parts, record, waiting)
        if record.agent.failure is not None and record.agent.failure.step == due.step:
            self._parts.metrics.step_retries.labels(due.step.value).inc()
        async with self._acts.turn(record.agent.owner_id), asyncio.timeout(due.within_seconds):
            if due.via is not None and record.agent.state is not due.via:
                record = await parts.journal.save(record, step=due.step, to=due.via)
            return await STEPS[due.step](parts, record, waiting)

    def _held_seconds(self, record: Record, due: Due) -> float | None:
        """How long an act that failed is still held back; None when it may be tried."""
        failure = record.agent.failure
        if failure is None or failure.retry_at is None or failure.step != due.step or due.step in LOOKS:
            return None
        return seconds_until(failure.retry_at, self._parts.now()) or None

    def _waiting(self, record: Record, due: Due | None) -> Waiting:
        agent = record.agent
        at = (agent.state, agent.generation, agent.run)
        place = self._places.get(agent.id)
        if place is None or place.at != at:
            place = self._places[agent.id] = _Place(at, asyncio.get_running_loop().time())
        return Waiting(place.since, due.within_seconds if due else 0.0)

    async def _fail(self, parts: Parts, agent_id: str, due: Due | None, error: Error) -> float:
        """Write the failure into the agent; returns in how many seconds to try again."""
        record = await parts.journal.load(agent_id)
        before = record.agent.failure
        step = due.step if due is not None else Step.AWAIT_READY
        if step not in LOOKS:
            parts.untidy.set()
        again = before is not None and before.step == step and before.code == error.reason
        attempts = before.attempts + 1 if before is not None and again else 1
        fix = ""
        if isinstance(error, StepFailed):
            attempts, fix = error.attempts or attempts, error.fix
        seconds = error.retry_after_seconds or backoff_seconds(attempts, self._random.random())
        if isinstance(error, Unavailable):
            # It comes back for all agents at once, and they with it; one that fails by itself can wait longer.
            seconds = min(seconds, OUTAGE_SECONDS)
        seconds = min(seconds, LONGEST_SECONDS)
        failure = Failure(
            step=step,
            reason=str(error),
            code=error.reason,
            attempts=attempts,
            retry_at=parts.now() + timedelta(seconds=seconds),
            fix=fix,
        )
        # One event and one line a reason, not one a try.
        parts.metrics.step_failures.labels(str(step), error.reason).inc()
        told = before is not None and again and before.reason == failure.reason
        if not told:
            log.warning("step failed", agent=agent_id, step=step.value, reason=str(error), code=error.reason)
        try:
            await parts.journal.save(record, step=step, reason="" if told else str(error), failure=failure)
        except Overtaken:
            return 0.0
        return seconds

    def _forget(self, agent_id: str) -> None:
        self._places.pop(agent_id, None)
        self._lost.pop(agent_id, None)
        self._forget_timer(agent_id)

    def _forget_timer(self, agent_id: str) -> None:
        if (timer := self._timers.pop(agent_id, None)) is not None:
            timer.cancel()
