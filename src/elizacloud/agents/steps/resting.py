"""The look at an agent that is where it is wanted: is it well, and does anybody use it? idle/decide.py says what is due.

What is due is written down as what is wanted, and the table of states leads there, with every request in flight drained.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from elizacloud.agents.identity import drift
from elizacloud.agents.idle.decide import Decision, Facts, Move, decide
from elizacloud.agents.idle.policy import Policy, policy_of
from elizacloud.agents.parts import BUSY_MAX_SECONDS, Later, Moved, Outcome, Parts, Waiting
from elizacloud.agents.quota import check_quota
from elizacloud.agents.steps.ending import stop
from elizacloud.agents.steps.joining import check
from elizacloud.agents.steps.launching import forget_node
from elizacloud.agents.steps.pausing import REST, rested_by_policy
from elizacloud.errors import Invalid, TooMany, Unavailable
from elizacloud.states import State, Wanted
from elizacloud.store import Record

log = structlog.get_logger()

LOOK_AGAIN_SECONDS = 3600.0
"""The longest until the next look, so that a clock that is put right or a policy of another control plane is seen."""
REFUSED_SECONDS = 60.0
_SAID = (REST, "pause", "sleep", "stop")
"""What events call that which makes an agent rest."""
_RESTS = frozenset({State.READY, State.PAUSED, State.STOPPED})


async def rest(parts: Parts, record: Record, *, suspected: bool) -> Outcome:
    """`check`, and then what the agent's idle policy says; looked at again when that may say something else."""
    if _may_run(record):
        return await _stop(parts, record)
    outcome = await check(parts, record, suspected=suspected)
    if isinstance(outcome, Moved) or record.agent.external or record.agent.state not in _RESTS:
        return outcome
    decision = await decision_of(parts, record)
    match decision.move:
        case Move.PAUSE | Move.SLEEP:
            wanted = Wanted.PAUSED if decision.move is Move.PAUSE else Wanted.ASLEEP
            await parts.journal.want(record, wanted, step=REST, reason=decision.why)
            return Moved()
        case Move.WAKE:
            try:
                await check_quota(parts.store, parts.settings, record.agent.owner_id, new=False)
            except TooMany as refused:
                log.warning("not woken", agent=record.agent.id, reason=str(refused))
                return Later(REFUSED_SECONDS)
            await parts.journal.want(record, Wanted.RUNNING, step="wake", reason=decision.why)
            return Moved()
        case Move.ARCHIVE:
            try:
                await _archive(parts, record, decision.why)
            except Unavailable as error:
                log.warning("not archived yet", agent=record.agent.id, reason=str(error))
                return Later(REFUSED_SECONDS, blind=True)
            return Moved()
    return Later(_sooner(parts, decision, outcome.seconds), outcome.blind)


def _may_run(record: Record) -> bool:
    """True for one that was stopped while nobody knew whether its next run had started: its runtime had not answered."""
    run = record.run
    return (
        record.agent.state is State.STOPPED and run is not None and run.started_at is not None and run.ended_at is None
    )


async def _stop(parts: Parts, record: Record) -> Outcome:
    try:
        return await stop(parts, record, Waiting(asyncio.get_running_loop().time(), within_seconds=0.0))
    except Unavailable as error:
        log.warning("not stopped yet", agent=record.agent.id, reason=str(error))
        return Later(parts.settings.poll_seconds, blind=True)


async def decision_of(parts: Parts, record: Record) -> Decision:
    """What is due for an agent that is ready, paused or stopped, or why nothing is."""
    try:
        policy = await _policy(parts, record)
    except Invalid as error:
        return Decision(None, f"It is left as it is: its idle policy is not understood ({error}).")
    return decide(facts_of(parts, record), policy, archive_after_seconds=parts.settings.archive_after_seconds)


async def is_only_polled(parts: Parts, record: Record, gap_seconds: float) -> bool:
    """Whether polls with this pause between them are no reason to wake it: it was put to rest while they went on."""
    try:
        policy = await _policy(parts, record)
    except Invalid:
        return False
    if policy.idle_after_seconds is None or gap_seconds >= policy.idle_after_seconds:
        return False
    return await rested_by_policy(parts, record.agent.id)


async def _policy(parts: Parts, record: Record) -> Policy:
    """Raises Invalid for what an older version let in."""
    return policy_of(
        Policy(parts.settings.idle_after_seconds, parts.settings.stop_after_seconds),
        await parts.store.owners.idle_policy(record.agent.owner_id),
        record.agent.spec.idle_policy,
    )


async def why_of(parts: Parts, record: Record) -> str:
    """Why it runs, or rests and since what was said; empty for one that is on its way somewhere."""
    agent = record.agent
    if agent.state not in _RESTS or agent.external:
        return ""
    decision = await decision_of(parts, record)
    why = decision.why if decision.move is None else f"It is about to be {decision.move}: {decision.why}."
    said = [await parts.store.events.last(agent.id, step=step) for step in _SAID]
    last = max((event for event in said if event is not None), key=lambda event: event.sequence, default=None)
    return why if last is None or agent.state is State.READY else f"{why} It came to rest because {last.reason}."


def facts_of(parts: Parts, record: Record) -> Facts:
    agent, run, now = record.agent, record.run, parts.now()
    used_at, rests_since, busy_until = parts.uses.last(agent.id), agent.updated_at, None
    if run is not None:
        used_at = max(used_at, run.ready_at or used_at)
        if agent.state is State.STOPPED:
            rests_since = run.ended_at or rests_since
        if run.busy_until is not None and run.busy_until - now <= timedelta(seconds=BUSY_MAX_SECONDS):
            busy_until = run.busy_until
    return Facts(
        agent.state,
        agent.wanted,
        now,
        min(used_at, now),
        rests_since,
        busy_until,
        has_node=record.generation.node_id is not None,
    )


async def _archive(parts: Parts, record: Record, why: str) -> None:
    """Delete its node, then its key: a stopped agent's only. Its state volume stays, and joins as another node."""
    headscale, generation = parts.place.headscale, record.generation
    await parts.memory.check_headscale()  # on another one the ids are others'
    node = None if generation.node_id is None else await headscale.get_node(generation.node_id)
    if node is not None and not drift(node, generation):
        await headscale.delete_node(node.id)
    if generation.preauth_key_id is not None:
        await headscale.delete_preauth_key(generation.preauth_key_id)
    await parts.journal.save(record, step="archive", reason=why, generation=forget_node(generation))


def _sooner(parts: Parts, decision: Decision, seconds: float | None) -> float | None:
    if decision.again_at is None:
        return seconds
    left = min(max(0.05, (decision.again_at - parts.now()).total_seconds()), LOOK_AGAIN_SECONDS)
    return left if seconds is None else min(seconds, left)
