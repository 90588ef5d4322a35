"""Between ready and frozen: drain and pause, resume."""

from __future__ import annotations

from elizacloud.agents.backoff import seconds_until
from elizacloud.agents.parts import BUSY_MAX_SECONDS, Moved, Outcome, Parts, StepFailed, Waiting
from elizacloud.agents.steps.joining import fall_back, why_ended
from elizacloud.states import State, Step
from elizacloud.store import Record

DRAIN_SECONDS = 10.0


async def pause(parts: Parts, record: Record, waiting: Waiting) -> Outcome:
    """Withdraw it and freeze it once every relay says that nothing is in flight; one that is silent vetoes.

    Undo: it is resumed and published again.
    """
    run = record.run
    if (ended := await why_ended(parts, record)) is not None:
        return await fall_back(parts, record, Step.PAUSE, ended)
    until = parts.busy_until.get(record.agent.id)
    left = 0.0 if until is None else seconds_until(until, parts.now(), longest_seconds=BUSY_MAX_SECONDS)
    if left:
        await parts.journal.save(record, step=Step.PAUSE, to=State.READY)
        raise StepFailed("its container says that it is working", code="busy", retry_after_seconds=left)
    if not await parts.journal.withdraw(record, within_seconds=DRAIN_SECONDS):
        await parts.journal.save(record, step=Step.PAUSE, to=State.READY, reason="requests are in flight")
        raise StepFailed("a relay did not say that it is idle", code="busy")
    if run is not None and run.runtime_ref is not None:
        await parts.place.runtime.pause(run.runtime_ref)
    await parts.journal.save(record, step=Step.PAUSE, to=State.PAUSED, seconds=waiting.seconds, failure=None)
    return Moved()


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
