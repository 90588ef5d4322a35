"""From nothing to a running instance: mint key and create instance, start, start again. Each fact is saved before the
next act, and each act is preceded by a look, so that a crash anywhere is taken up where it happened."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

from elizacloud.agents.backoff import LOOK_BACK_RUNS, backoff_seconds, quick_deaths, seconds_until, was_stopped_by_us
from elizacloud.agents.identity import drift, has_joined, is_expired, is_own, pinned
from elizacloud.agents.journal import Overtaken
from elizacloud.agents.parts import Later, Moved, Outcome, Parts, StepFailed, Waiting
from elizacloud.agents.steps.volume import begin_generation, volume_is_lost
from elizacloud.agents.together import for_each
from elizacloud.errors import Error, RuntimeRefused
from elizacloud.headscale.protocol import MintedKey, Node
from elizacloud.model import TAG_AGENT, Generation, Run, agent_hostname, agent_tag, installation_tag
from elizacloud.runtime.protocol import EXIT_KEY_DEAD, OF_TAILNET, InstanceSpec, Labels, Phase
from elizacloud.states import State, Step
from elizacloud.store import Record

T = TypeVar("T")

EXTERNAL_KEY_LIFETIME_SECONDS = 3600.0
"""A person starts it by hand; the key is single-use all the same."""
EARLIER_RUN_GRACE_SECONDS = 10.0
KEY_DEAD = f"exit {EXIT_KEY_DEAD}: {OF_TAILNET}"
"""How the end reason of a run begins whose key was refused. An agent that ends with the same status says so otherwise."""
NODE_EXPIRED = "its node expired in Headscale"
"""The end reason of such a run. It counts as a death, so that a machine that logs out again and again is started less often."""


async def mint_key(parts: Parts, record: Record, waiting: Waiting) -> Outcome:
    """Mint a pre-auth key and, beside it, create the instance. Undo: the key is expired; an instance is created once."""
    agent = record.agent
    if agent.external and not parts.handover.is_expected(agent.id):
        return Later(None)
    record = await retire_key(parts, record)
    if await volume_is_lost(parts, record):
        record = await begin_generation(parts, record)
    number = next_run_number(record)
    spec = instance_spec(parts, record, number)
    failures: list[Error | Overtaken] = []
    async with asyncio.TaskGroup() as tasks:
        # Neither is cut short when the other fails: a call that was cancelled may have acted all the same.
        minting = tasks.create_task(_settle(_mint(parts, record), failures), name=f"mint key {agent.id}")
        if not agent.external:
            creating = tasks.create_task(_settle(parts.place.runtime.create(spec), failures), name=f"create {agent.id}")
    minted = minting.result()
    if minted is not None:
        key, record = minted
        parts.handover.put_key(agent.id, key)
    if failures:
        if minted is not None:
            await retire_key(parts, record)
        raise failures[0]
    ref = None if agent.external else creating.result()
    run = Run(agent.id, record.agent.generation, number, runtime_ref=ref)
    await parts.journal.save(record, step=Step.MINT_KEY, to=State.KEYED, seconds=waiting.seconds, run=run, failure=None)
    return Moved()


async def start(parts: Parts, record: Record, waiting: Waiting) -> Outcome:
    """Start the instance with the key. When the key's value was lost with the process that held it: expire it and go back."""
    agent, run = record.agent, record.run
    if run is None:
        return await _begin_anew(parts, record, "it has no run")
    if not agent.external:
        instance = await parts.place.runtime.inspect(run.runtime_ref) if run.runtime_ref else None
        if instance is not None and instance.phase is Phase.RUNNING and run.join_token_sha256 is not None:
            return await _started(parts, record, run, Step.START, waiting, reason="it was running already")
        if instance is None or instance.phase is not Phase.CREATED:
            return await _begin_anew(parts, record, "its instance is not there any more")
    key = parts.handover.key(agent.id, record.generation.preauth_key_id)
    if key is None or key.expires_at <= parts.now() or record.generation.preauth_key_expired:
        return await _begin_anew(parts, record, "the value of its key was lost; a new key is minted")
    return await _launch(parts, record, run, key, Step.START, waiting)


async def restart(parts: Parts, record: Record, waiting: Waiting) -> Outcome:
    """Start a new run on the same node; when the node is lost or its key was refused, go back for a new key."""
    agent, run = record.agent, record.run
    await _check_deaths(parts, record)
    if record.generation.node_id is None or run is None:
        return await _begin_anew(parts, record, "it had not joined the tailnet")
    if await volume_is_lost(parts, record):
        return await _begin_anew(parts, record, "its state volume was lost")
    if (lost := await _why_lost(parts, record)) is not None:
        return await _begin_anew(parts, record, lost)
    if agent.external:
        parts.handover.give_up(agent.id)
        parts.lookout.expect(agent.id)
        run = replace(run, ended_at=None, end_reason=None)
        await parts.journal.save(record, step=Step.RESTART, to=State.STARTED, run=run, failure=None)
        return Moved()
    held = parts.handover.has_credentials((agent.id, run.generation, run.number))
    if run.ended_at is not None or not held:
        instance = await parts.place.runtime.inspect(run.runtime_ref) if run.runtime_ref else None
        if run.ended_at is None and run.join_token_sha256 and instance and instance.phase is Phase.RUNNING:
            return await _started(parts, record, run, Step.RESTART, waiting, reason="it was running already")
        number = run.number + 1
        ref = await _create_after(parts, run, instance_spec(parts, record, number))
        run = Run(agent.id, agent.generation, number, runtime_ref=ref)
        record = await parts.journal.save(record, step=Step.RESTART, run=run)
    return await _launch(parts, record, run, None, Step.RESTART, waiting)


async def retire_key(parts: Parts, record: Record) -> Record:
    """Expire the generation's key, so that nobody can join with it any more. It is deleted only after its node."""
    generation = record.generation
    if generation.preauth_key_id is None or generation.preauth_key_expired:
        return record
    await parts.place.headscale.expire_preauth_key(generation.preauth_key_id)
    return await parts.journal.save(record, step="expire key", generation=replace(generation, preauth_key_expired=True))


def forget_node(generation: Generation) -> Generation:
    """The generation without its key and node: the same state volume is to join as a new node."""
    return Generation(generation.agent_id, generation.number, created_at=generation.created_at)


def next_run_number(record: Record) -> int:
    """A run that was only created is taken up again; one that was started is not."""
    run = record.run
    if run is None:
        return record.agent.run + 1
    begun = run.join_token_sha256 is not None or run.started_at is not None or run.ended_at is not None
    return run.number + 1 if begun else run.number


def instance_spec(parts: Parts, record: Record, run: int) -> InstanceSpec:
    agent, place = record.agent, parts.place
    return InstanceSpec(
        labels=Labels(place.installation_id, agent.id, agent.generation, run),
        hostname=agent_hostname(agent.id),
        join_url=place.join_url,
        report_url=place.report_url,
        agent=agent.spec,
        host_id=agent.host_id,
    )


async def _create_after(parts: Parts, before: Run, spec: InstanceSpec) -> str:
    """Create the instance of the next run, and end the one before if it runs after all: it was looked for on a Docker that was
    not its own, as when the names of two hosts were exchanged."""
    runtime = parts.place.runtime
    try:
        return await runtime.create(spec)
    except RuntimeRefused as refused:
        if refused.reason != "earlier_run_runs" or before.runtime_ref is None:
            raise
    await runtime.stop(before.runtime_ref, grace_seconds=EARLIER_RUN_GRACE_SECONDS)
    return await runtime.create(spec)


async def mint(parts: Parts, record: Record) -> MintedKey:
    """A key whose node will carry this agent's tag and this installation's."""
    agent = record.agent
    lifetime = EXTERNAL_KEY_LIFETIME_SECONDS if agent.external else parts.settings.key_lifetime_seconds
    tags = (TAG_AGENT, agent_tag(agent.id), installation_tag(parts.place.installation_id))
    return await parts.place.headscale.create_preauth_key(tags=tags, lifetime_seconds=lifetime)


async def _mint(parts: Parts, record: Record) -> tuple[MintedKey, Record]:
    key = await mint(parts, record)
    generation = replace(record.generation, preauth_key_id=key.id, preauth_key_expired=False)
    try:
        saved = await parts.journal.save(record, step=Step.MINT_KEY, generation=generation)
        if record.generation.preauth_key_id is not None:
            parts.untidy.set()  # nobody knows of the key before it any more
        return key, saved
    except Error:
        # Nobody knows of this key now; should this fail too, it expires by itself and a sweep removes it.
        with suppress(Error):
            await parts.place.headscale.expire_preauth_key(key.id)
        raise


async def _launch(
    parts: Parts, record: Record, run: Run, key: MintedKey | None, step: Step, waiting: Waiting
) -> Outcome:
    """Save the run's credentials, then start its instance, then say so."""
    agent_id = record.agent.id
    credentials = parts.handover.credentials((agent_id, run.generation, run.number))
    run = replace(credentials.on(run), started_at=parts.now())
    record = await parts.journal.save(record, step=step, run=run)
    secrets = credentials.with_key(key.value if key else None)
    parts.lookout.expect(agent_id)
    if run.runtime_ref is not None:
        await parts.place.runtime.start(run.runtime_ref, secrets)
    outcome = await _started(parts, record, run, step, waiting)
    parts.handover.give(agent_id, secrets)
    return outcome


async def _started(
    parts: Parts, record: Record, run: Run, step: Step, waiting: Waiting, *, reason: str = ""
) -> Outcome:
    await parts.journal.save(
        record,
        step=step,
        to=State.STARTED,
        reason=reason,
        seconds=waiting.seconds,
        run=replace(run, started_at=run.started_at or parts.now()),
        failure=None,
        agent_ready=None,
    )
    parts.handover.drop(record.agent.id)
    return Moved()


async def _begin_anew(parts: Parts, record: Record, reason: str) -> Outcome:
    """Back to the start, with the key expired and the node forgotten: the next one is found by the next key."""
    record = await retire_key(parts, record)
    parts.handover.drop(record.agent.id)
    nodes = await _nodes_unseen(parts, record)
    if (joined := _joined_as(parts, record, nodes)) is not None:
        to = State.STOPPED if record.agent.state is State.STOPPED else State.STOPPING
        reason = "it had joined before its instance ended"
        await parts.journal.save(record, step="find node", to=to, reason=reason, generation=joined)
        return Moved()
    await _delete_own(parts, record, nodes)
    generation = forget_node(record.generation)
    await parts.journal.save(record, step="begin anew", to=State.REQUESTED, reason=reason, generation=generation)
    parts.untidy.set()
    return Moved()


async def joined_unseen(parts: Parts, record: Record) -> Generation | None:
    """The generation with the node that its last run joined as, when that run ended before anybody saw the node.

    The node is on the volume, and tailscaled would come back as it whatever key it is given.
    """
    return _joined_as(parts, record, await _nodes_unseen(parts, record))


async def _nodes_unseen(parts: Parts, record: Record) -> Sequence[Node]:
    """All nodes, when the agent's last run may have joined as one of them and nobody saw it."""
    run = record.run
    if record.generation.node_id is not None or run is None or run.started_at is None:
        return ()
    return await parts.place.headscale.list_nodes()


def _joined_as(parts: Parts, record: Record, nodes: Sequence[Node]) -> Generation | None:
    node = next((node for node in nodes if has_joined(node, record.generation)), None)
    return pinned(record.generation, node, parts.now()) if node is not None else None


async def _delete_own(parts: Parts, record: Record, nodes: Sequence[Node]) -> None:
    """Delete those that are the agent's by tag and that it is not to be: its tailscaled would come back as one, and wait for a
    key of before."""
    agent, installation_id = record.agent, parts.place.installation_id
    own = [] if agent.external else [node for node in nodes if is_own(node, agent.id, installation_id)]
    if own:
        await parts.memory.check_headscale()  # on another one they are another's with the same tags
        await for_each((node.id for node in own), parts.place.headscale.delete_node, "delete node")


async def _why_lost(parts: Parts, record: Record) -> str | None:
    """Why the agent cannot come back as the node that it was, or None when it can. One that is its own still, but is not what
    it was or was refused, is deleted: its tailscaled would come back as this node, whatever key it is given.

    What a new key does to a node that was expired (`headscale nodes expire`), tailscaled 1.102.3: 0.27.1 revives it; 0.28.0 makes
    a second node with another address; 0.29.2 puts the key on the node, which stays expired, and refuses the key as used. So
    only 0.27 could keep the address.
    """
    generation, run = record.generation, record.run
    assert generation.node_id is not None
    node = await parts.place.headscale.get_node(generation.node_id)
    if node is None:
        await parts.memory.check_headscale()  # on another one nobody's node is
        return "its node was deleted; a new key is minted"
    changed, expired = drift(node, generation), is_expired(node, parts.now())
    refused = run is not None and (run.end_reason or "").startswith(KEY_DEAD)
    if not (changed or expired or refused):
        return None
    if not changed or node.machine_key == generation.machine_key:
        await parts.place.headscale.delete_node(node.id)
    why = f"its node changed: {changed}" if changed else NODE_EXPIRED if expired else "the tailnet refused it"
    return f"{why}; a new key is minted"


async def _check_deaths(parts: Parts, record: Record) -> None:
    """Raise StepFailed while it is too early to try again, because the last runs died soon after they started."""
    run, agent = record.run, record.agent
    if run is None or run.ended_at is None or was_stopped_by_us(run):
        return
    runs = [run]
    while len(runs) < LOOK_BACK_RUNS and runs[-1].number > 1:
        before = await parts.store.agents.run(agent.id, run.generation, runs[-1].number - 1)
        if before is None:
            break
        runs.append(before)
    deaths = quick_deaths(runs)
    if deaths == 0:
        return
    again_at = run.ended_at + timedelta(seconds=backoff_seconds(deaths))
    left = seconds_until(again_at, parts.now())
    if not left:
        return
    raise StepFailed(
        f"its instance ended soon after its start ({run.end_reason})",
        code="instance_died",
        fix="Look at its logs.",
        attempts=deaths,
        retry_after_seconds=left,
    )


async def _settle(work: Coroutine[Any, Any, T], failures: list[Error | Overtaken]) -> T | None:
    try:
        return await work
    except (Error, Overtaken) as error:
        failures.append(error)
        return None
