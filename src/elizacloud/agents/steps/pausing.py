"""Between ready and frozen: drain and pause, resume."""

from __future__ import annotations

import asyncio

from elizacloud.agents.backoff import seconds_until
from elizacloud.agents.parts import BUSY_MAX_SECONDS, Moved, Outcome, Parts, StepFailed, Waiting
from elizacloud.agents.steps.joining import fall_back, why_ended
from elizacloud.model import Run
from elizacloud.states import WAKEABLE, State, Step, Wanted
from elizacloud.store import Record

DRAIN_SECONDS = 10.0
DRAIN_LOOK_SECONDS = 1.0
REST, IN_USE = "rest", "in use"
"""What events call that which an idle policy wants, and that it was wrong."""
_WORKING = "its container says that it is working"


async def pause(parts: Parts, record: Record, waiting: Waiting) -> Outcome:
    """Withdraw it and freeze it once every relay says that nothing is in flight; one that is silent vetoes.

    Undo: it is resumed and published again.
    """
    run = record.run
    if (ended := await why_ended(parts, record)) is not None:
        return await fall_back(parts, record, Step.PAUSE, ended)
    if left := _busy_seconds(parts, run):
        return await _not_now(parts, record, _WORKING, left)
    if not await _drained(parts, record):
        return await _not_now(parts, record, "a relay did not say that it is idle", None)
    if run is not None:
        # What its container says while it drains is written to the run alone, so that no save of ours is overtaken by it.
        run = await parts.store.agents.run(run.agent_id, run.generation, run.number)
        if left := _busy_seconds(parts, run):
            return await _not_now(parts, record, _WORKING, left)
    if run is not None and run.runtime_ref is not None:
        await parts.place.runtime.pause(run.runtime_ref)
    await parts.journal.save(record, step=Step.PAUSE, to=State.PAUSED, seconds=waiting.seconds, failure=None)
    return Moved()


def _busy_seconds(parts: Parts, run: Run | None) -> float:
    """How long its container still works, by what it said; 0 when it said nothing or that time is over."""
    until = None if run is None else run.busy_until
    return 0.0 if until is None else seconds_until(until, parts.now(), longest_seconds=BUSY_MAX_SECONDS)


async def _drained(parts: Parts, record: Record) -> bool:
    """True when nothing is in flight; no longer waited for once it is wanted to run, since a request may be held for it."""
    now = asyncio.get_running_loop().time
    ends_at = now() + DRAIN_SECONDS
    while (began := now()) < ends_at:
        if await parts.journal.withdraw(record, within_seconds=DRAIN_LOOK_SECONDS):
            return True
        if now() - began < DRAIN_LOOK_SECONDS / 2:
            return False  # a relay that knows before the time is over holds a request
        if (await parts.journal.load(record.agent.id)).agent.wanted is Wanted.RUNNING:
            return False
    return False


async def rested_by_policy(parts: Parts, agent_id: str) -> bool:
    """Whether its idle policy, and not its owner's word, made it rest the last time."""
    events = parts.store.events
    rested = await events.last(agent_id, step=REST)
    told = [await events.last(agent_id, step=step) for step in ("pause", "sleep")]
    return rested is not None and all(event is None or event.sequence < rested.sequence for event in told)


async def _not_now(parts: Parts, record: Record, why: str, retry_after_seconds: float | None) -> Outcome:
    """It is published again. What its owner wants is tried again later; what its idle policy wanted was wrong: it is used."""
    record = await parts.journal.save(record, step=Step.PAUSE, to=State.READY, reason=why)
    if record.agent.wanted not in WAKEABLE:
        return Moved()
    if await rested_by_policy(parts, record.agent.id):
        parts.uses.note(record.agent.id)
        await parts.journal.want(record, Wanted.RUNNING, step=IN_USE, reason=why)
        return Moved()
    raise StepFailed(why, code="busy", retry_after_seconds=retry_after_seconds)


async def resume(parts: Parts, record: Record, waiting: Waiting) -> Outcome:
    """Unfreeze it. From paused it is probed before it is routable again; a pause that was not finished needs no probe."""
    agent, run = record.agent, record.run
    if (ended := await why_ended(parts, record)) is not None:
        return await fall_back(parts, record, Step.RESUME, ended)
    if run is not None and run.runtime_ref is not None:
        await parts.place.runtime.resume(run.runtime_ref)
    to = State.READY if agent.state is State.PAUSING else State.JOINED
    await parts.journal.save(record, step=Step.RESUME, to=to, seconds=waiting.seconds, failure=None)
    return Moved()
