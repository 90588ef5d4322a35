"""From anything to nothing: stop instance, delete, confirm gone. Repeating any of them is harmless."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from elizacloud.agents.backoff import STOPPED_BY_US
from elizacloud.agents.parts import Later, Moved, Outcome, Parts, Waiting
from elizacloud.agents.reconcile.observe import Leftovers, ours
from elizacloud.agents.steps.launching import joined_unseen, retire_key
from elizacloud.agents.together import for_each
from elizacloud.states import State, Step
from elizacloud.store import Record

STOP_GRACE_SECONDS = 10.0
DELETE_GRACE_SECONDS = 3.0
WITHDRAW_SECONDS = 5.0
CLEAN_SWEEPS = 2
CLEAN_GAP_SECONDS = 2.0


async def stop(parts: Parts, record: Record, waiting: Waiting) -> Outcome:
    """Withdraw it, stop its instance, expire a key that was not used. Node, address and state volume are kept."""
    agent, run = record.agent, record.run
    if run is not None and run.ended_at is None:
        await parts.journal.withdraw(record, within_seconds=WITHDRAW_SECONDS)
    if run is not None and run.runtime_ref is not None:
        await parts.place.runtime.stop(run.runtime_ref, grace_seconds=STOP_GRACE_SECONDS)
    record = await retire_key(parts, record)
    parts.handover.drop(agent.id)
    joined = await joined_unseen(parts, record)
    if run is not None and run.ended_at is None:
        run = replace(run, ended_at=parts.now(), end_reason=f"{STOPPED_BY_US}: as wanted")
    await parts.journal.save(
        record,
        step=Step.STOP,
        to=State.STOPPED,
        seconds=waiting.seconds,
        generation=joined,
        run=run,
        failure=None,
        agent_ready=None,
    )
    return Moved()


async def delete(parts: Parts, record: Record, waiting: Waiting) -> Outcome:
    """Tell everything outside to go, in this order: relays, instance, node, key, volume.

    A node that is deleted while connected hangs Headscale's shutdown, so its machine stops first; a key goes after its
    node, which would lose its way back otherwise.
    """
    agent = record.agent
    await parts.journal.withdraw(record, within_seconds=WITHDRAW_SECONDS)
    parts.handover.give_up(agent.id)
    for token in await parts.store.tokens.revoke_of_agent(agent.id):
        parts.relays.revoke_token(token.id)
    await _stop_instances(parts, record)
    record = await retire_key(parts, record)
    key_ids, node_ids = await _recorded(parts, agent.id)
    if record.run is not None and record.generation.node_id is None:
        # It may have joined unseen; then only its tag tells.
        found = await _find_leftovers(parts, agent.id, key_ids, node_ids)
        key_ids |= {key.id for key in found.keys}
        node_ids |= {node.id for node in found.nodes}
    await _remove_all(parts, record, key_ids, node_ids)
    await parts.journal.save(record, step=Step.DELETE, to=State.TOMBSTONE, seconds=waiting.seconds, failure=None)
    return Moved()


async def confirm_gone(parts: Parts, record: Record, waiting: Waiting) -> Outcome:
    """Two looks in a row that find nothing of it; whatever one of them finds is removed, and counting starts again."""
    agent = record.agent
    key_ids, node_ids = await _recorded(parts, agent.id)
    found = await _find_leftovers(parts, agent.id, key_ids, node_ids)
    if found:
        parts.clean_sweeps.pop(agent.id, None)
        record = await parts.journal.save(
            record, step=Step.CONFIRM_GONE, to=State.DELETING, reason=f"found {found} of it"
        )
        ids = frozenset(key.id for key in found.keys), frozenset(node.id for node in found.nodes)
        await _remove_all(parts, record, key_ids | ids[0], node_ids | ids[1])
        await parts.journal.save(record, step=Step.DELETE, to=State.TOMBSTONE)
        return Later(CLEAN_GAP_SECONDS)
    clean = parts.clean_sweeps[agent.id] = parts.clean_sweeps.get(agent.id, 0) + 1
    if clean < CLEAN_SWEEPS:
        return Later(CLEAN_GAP_SECONDS)
    await parts.journal.save(record, step=Step.CONFIRM_GONE, to=State.GONE, seconds=waiting.seconds, failure=None)
    parts.forget(agent.id)
    return Moved()


async def _stop_instances(parts: Parts, record: Record) -> set[str]:
    """Stop every instance that carries the agent's label, and the one that the store knows; returns their refs."""
    runtime, agent = parts.place.runtime, record.agent
    if agent.external:
        return set()
    listed = ours(await parts.place.inventory_of(agent).list(parts.place.installation_id), parts.place.installation_id)
    refs = {instance.ref for instance in listed if instance.labels.agent_id == agent.id}
    if record.run is not None and record.run.runtime_ref is not None:
        refs.add(record.run.runtime_ref)
    await for_each(refs, lambda ref: runtime.stop(ref, grace_seconds=DELETE_GRACE_SECONDS), "stop")
    return refs


async def _remove_all(parts: Parts, record: Record, key_ids: frozenset[str], node_ids: frozenset[str]) -> None:
    """Delete these nodes, then these keys, then the agent's instances with their volumes, then volumes without one."""
    runtime, agent = parts.place.runtime, record.agent
    refs = await _stop_instances(parts, record)
    await for_each(node_ids, parts.place.headscale.delete_node, "delete node")
    await for_each(key_ids, parts.place.headscale.delete_preauth_key, "delete key")
    await for_each(refs, lambda ref: runtime.remove(ref, volume=True), "remove")
    if not agent.external:
        inventory = parts.place.inventory_of(agent)
        volumes = await inventory.list_volumes(parts.place.installation_id, agent_id=agent.id)
        await for_each(
            (volume.ref for volume in volumes), lambda ref: runtime.remove(ref, volume=True), "remove volume"
        )


async def _recorded(parts: Parts, agent_id: str) -> tuple[frozenset[str], frozenset[str]]:
    """The ids of keys and nodes that any of its generations recorded, and no other agent's: those need a look first."""
    generations = await parts.store.agents.generations(agent_id)
    keys = {generation.preauth_key_id for generation in generations if generation.preauth_key_id}
    nodes = {generation.node_id for generation in generations if generation.node_id}
    others = await parts.store.agents.recorded_by_others(agent_id, keys, nodes)
    return frozenset(keys - others[0]), frozenset(nodes - others[1])


async def _find_leftovers(parts: Parts, agent_id: str, key_ids: frozenset[str], node_ids: frozenset[str]) -> Leftovers:
    outside = await parts.outside.get(since=asyncio.get_running_loop().time())
    return outside.leftovers_of(agent_id, key_ids=key_ids, node_ids=node_ids)
