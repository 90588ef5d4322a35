"""From a running instance to one that answers: await join, await ready, and the look that keeps it so.

Nothing waits in here. Each call is one look; what happens meanwhile (a relay sees a peer, a container reports, an instance
dies) wakes the agent for the next one, with a slow poll behind.
"""

from __future__ import annotations

from dataclasses import replace

from elizacloud.agents.backoff import HOST_STOPPED
from elizacloud.agents.identity import drift, has_anothers_key, is_expired, is_own, pinned
from elizacloud.agents.parts import Later, Moved, Outcome, Parts, StepFailed, Waiting
from elizacloud.agents.steps.launching import NODE_EXPIRED, retire_key
from elizacloud.agents.told import upstream_of
from elizacloud.errors import HeadscaleUnavailable, Unavailable
from elizacloud.runtime.protocol import STOPPED, Instance, Phase
from elizacloud.states import State, Step
from elizacloud.store import Record
from elizacloud.upstreams import Probe

PROBE_SECONDS = 5.0
NODE_CHANGED = "node_changed"
"""The failure of an agent whose node is not the one that joined: held until a person says which is right."""
_READINESS = {
    True: "it says that it is ready",
    False: "it does not say that it is ready",
    None: "it answers and does not say whether it is ready",
}
STEADY_PROBE_SECONDS = 300.0
"""A ready agent is asked again this often, to show whether it still is; being silent does not make it less routable."""


async def await_join(parts: Parts, record: Record, waiting: Waiting) -> Outcome:
    """Joined: Headscale lists a node with the key of this generation and the agent's tag. Its id is pinned then."""
    agent = record.agent
    if (ended := await why_ended(parts, record)) is not None:
        return await fall_back(parts, record, Step.AWAIT_JOIN, ended)
    node = await parts.lookout.find(record.generation)
    if node is not None:
        generation = pinned(record.generation, node, parts.now())
        await parts.journal.save(
            record,
            step=Step.AWAIT_JOIN,
            to=State.JOINED,
            seconds=waiting.seconds,
            generation=generation,
            failure=None,
        )
        return Moved()
    if waiting.is_over:
        await _check_key_of_node(parts, record)
    if agent.external:
        return Later(parts.lookout.next_look_seconds(agent.id))
    # Before its key is over: a node that was changed waits for a person, and a new key would be the next round of the same.
    if waiting.is_over and (outcome := await _look_at_node(parts, record)) is not None:
        return outcome
    if waiting.seconds >= parts.settings.key_lifetime_seconds:
        return await fall_back(parts, record, Step.AWAIT_JOIN, "stopped: it did not join while its key was valid")
    if waiting.is_over and agent.failure is None:
        raise StepFailed(
            f"no node joined the tailnet within {waiting.within_seconds:.0f} seconds",
            code="join_timeout",
            fix="Look at its logs, and whether it can reach the join URL.",
            retry_after_seconds=parts.lookout.next_look_seconds(agent.id),
        )
    return Later(parts.lookout.next_look_seconds(agent.id))


async def await_ready(parts: Parts, record: Record, waiting: Waiting) -> Outcome:
    """Ready: a relay got a live answer over its own path. The used key is expired after that, and whatever comes of it: who
    waits for the agent does not wait for its key."""
    agent = record.agent
    if (ended := await why_ended(parts, record)) is not None:
        return await fall_back(parts, record, Step.AWAIT_READY, ended)
    held = agent.failure is not None and agent.failure.code == NODE_CHANGED
    if held and (outcome := await _look_at_node(parts, record)) is not None:
        return outcome
    try:
        probe = await parts.relays.probe(upstream_of(record), within_seconds=PROBE_SECONDS)
    except Unavailable:
        await _settle_key(parts, record)
        raise
    if probe.live:
        run = record.run
        assert run is not None
        record = await parts.journal.save(
            record,
            step=Step.AWAIT_READY,
            to=State.READY,
            seconds=waiting.seconds,
            run=replace(run, ready_at=parts.now()),
            failure=None,
            agent_ready=probe.ready,
        )
        await _settle_key(parts, record)
        return Moved()
    record = await _settle_key(parts, record)
    if waiting.is_over:
        if (outcome := await _look_at_node(parts, record)) is not None:
            return outcome
        raise StepFailed(
            f"it gave no live answer within {waiting.within_seconds:.0f} seconds ({_why(probe)})",
            code="ready_timeout",
            fix="Look at its logs; its health path has to answer 200 or 401.",
        )
    return Later(probe_gap_seconds(waiting.seconds))


async def check(parts: Parts, record: Record, *, suspected: bool) -> Outcome:
    """A look at an agent that is where its owner wants it. `suspected`: a sweep or a relay saw something odd about it.

    When something that we need for the look does not answer, nothing is known and nothing changes: a ready agent stays
    reachable while all else is down.
    """
    if record.agent.state not in (State.READY, State.PAUSED):
        return Later(None)
    try:
        # A look that failed is made again with all that it looked at, before the failure is taken back.
        return await _check(parts, record, suspected=suspected or record.agent.failure is not None)
    except Unavailable:
        return Later(parts.settings.poll_seconds, blind=True)


async def _check(parts: Parts, record: Record, *, suspected: bool) -> Outcome:
    if (ended := await why_ended(parts, record)) is not None:
        return await fall_back(parts, record, Step.AWAIT_READY, ended)
    if suspected and (outcome := await _look_at_node(parts, record)) is not None:
        return outcome
    if record.agent.state is State.PAUSED:
        return Later(None)
    record = await _settle_key(parts, record)
    probe = await parts.relays.probe(upstream_of(record), within_seconds=PROBE_SECONDS)
    is_ready = probe.ready if probe.live else False
    if is_ready != record.agent.agent_ready:
        await parts.journal.save(record, step="probe", reason=_READINESS[is_ready], agent_ready=is_ready)
    if is_ready is False:
        return Later(parts.settings.poll_seconds)
    return Later(STEADY_PROBE_SECONDS)


def probe_gap_seconds(waited_seconds: float) -> float:
    """The pause between probes: short at first, growing with the time that it takes anyway."""
    return min(2.0, max(0.05, waited_seconds / 4))


async def _look_at_node(parts: Parts, record: Record) -> Outcome | None:
    """Follow a new address; fall back when the node is gone or expired; held when it is no longer the one that was pinned."""
    generation = record.generation
    if generation.node_id is None:
        return None
    node = await parts.place.headscale.get_node(generation.node_id)
    if node is None:
        await parts.memory.check_headscale()  # on another one nobody's node is
        return await fall_back(parts, record, Step.AWAIT_READY, "stopped: its node was deleted")
    if changed := drift(node, generation):
        if record.agent.state is State.READY:
            await parts.journal.save(record, step=Step.AWAIT_READY, to=State.JOINED, reason=changed)
        raise _node_changed(changed)
    if is_expired(node, parts.now()):
        return await fall_back(parts, record, Step.AWAIT_READY, NODE_EXPIRED)
    if (node.ipv4, node.ipv6) != (generation.ipv4, generation.ipv6):
        await parts.journal.save(
            record,
            step="check node",
            reason="its address changed",
            generation=replace(generation, ipv4=node.ipv4, ipv6=node.ipv6),
        )
        return Moved()
    return None


async def _check_key_of_node(parts: Parts, record: Record) -> None:
    """Raise StepFailed when the node that is to join is there already, but came by a key that was not minted for it: its
    machine got hold of one."""
    agent_id, generation, installation_id = record.agent.id, record.generation, parts.place.installation_id
    if generation.node_id is not None:
        return
    own = [node for node in await parts.lookout.listed() if is_own(node, agent_id, installation_id)]
    strays = [node for node in own if node.preauth_key_id != generation.preauth_key_id]
    keys = await parts.place.headscale.list_preauth_keys() if strays else []
    if any(has_anothers_key(node, agent_id, keys) for node in strays):
        raise StepFailed(
            "its node was registered again with a pre-auth key that was not minted for it",
            code=NODE_CHANGED,
            fix="Find out how its machine came by that key; then restart the agent, which gives it a new key and node.",
            retry_after_seconds=parts.lookout.next_look_seconds(agent_id),
        )


def _node_changed(how: str) -> StepFailed:
    return StepFailed(
        f"its node is not the one that joined: {how}",
        code=NODE_CHANGED,
        fix="Restart the agent to give it a new key, or undo the change in Headscale.",
    )


async def why_ended(parts: Parts, record: Record) -> str | None:
    """Why its instance no longer runs, or None while it does; of an agent started by hand nothing is known."""
    run = record.run
    if record.agent.external or run is None or run.runtime_ref is None:
        return None
    instance = await parts.place.runtime.inspect(run.runtime_ref)
    if instance is None:
        return "its instance vanished"
    return end_reason(instance) if instance.phase is Phase.EXITED else None


def end_reason(instance: Instance) -> str:
    """As it is stored with the run; launching.KEY_DEAD at its begin is what a dead key is known by."""
    if instance.reason == STOPPED:
        return HOST_STOPPED
    code = "unknown" if instance.exit_code is None else str(instance.exit_code)
    return f"exit {code}: {instance.reason}" if instance.reason else f"exit {code}"


async def fall_back(parts: Parts, record: Record, step: Step, reason: str) -> Outcome:
    """The run is over: by way of stopping, which cleans up, and from there whatever the owner wants."""
    assert record.run is not None
    run = replace(record.run, ended_at=parts.now(), end_reason=reason)
    await parts.journal.save(record, step=step, to=State.STOPPING, reason=reason, run=run, agent_ready=None)
    return Moved()


async def _settle_key(parts: Parts, record: Record) -> Record:
    """Expire the key that the node joined with; a Headscale that does not answer is asked again at the next look or sweep."""
    try:
        return await retire_key(parts, record)
    except HeadscaleUnavailable:
        parts.untidy.set()  # the next look at an agent that is ready may be a minute away
        return record


def _why(probe: Probe) -> str:
    return f"status {probe.status}" if probe.status is not None else probe.error or "no answer"
