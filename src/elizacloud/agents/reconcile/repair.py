"""Does what the guards let through, after one more look at each thing: a sweep's list is old when its turn comes."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from elizacloud.agents.parts import Parts
from elizacloud.agents.reconcile.diff import Finding, Kind, agent_of, is_extra
from elizacloud.errors import Error, NotFound
from elizacloud.runtime.protocol import Labels
from elizacloud.states import State
from elizacloud.store import Record

log = structlog.get_logger()


async def repair(parts: Parts, finding: Finding, *, wake: Callable[[str], None]) -> bool:
    """Repair one finding. What concerns a living agent is left to its own steps: it is only woken, with a suspicion.

    False when it failed: an error is logged and not raised, and the next sweep finds it again.
    """
    log.warning("found", kind=finding.kind.value, agent=finding.agent_id, about=finding.about, detail=finding.detail)
    try:
        await _repair(parts, finding, wake)
    except Error as error:
        parts.metrics.repairs.labels(finding.kind.value, "failed").inc()
        log.warning("cannot repair", kind=finding.kind.value, about=finding.about, reason=str(error))
        return False
    parts.metrics.repairs.labels(finding.kind.value, "done").inc()
    return True


async def _repair(parts: Parts, finding: Finding, wake: Callable[[str], None]) -> None:
    headscale, runtime = parts.place.headscale, parts.place.runtime
    match finding.kind:
        case Kind.ORPHAN_INSTANCE:
            if await _find(parts, finding.agent_id) is None:
                # Its state is found, and judged, by itself.
                await runtime.remove(finding.about, volume=False)
        case Kind.OLD_RUN:
            instance = await runtime.inspect(finding.about)
            record = await _find(parts, finding.agent_id)
            if instance is not None and record is not None and _is_older(instance.labels, record):
                await runtime.remove(finding.about, volume=False)
        case Kind.LATER_RUN:
            instance = await runtime.inspect(finding.about)
            record = await _find(parts, finding.agent_id)
            if instance is not None and record is not None and _is_later(instance.labels, record):
                await runtime.remove(finding.about, volume=False)
                wake(finding.agent_id)
        case Kind.ORPHAN_VOLUME | Kind.UNKNOWN_VOLUME:
            if await _find(parts, finding.agent_id) is None:
                await runtime.remove(finding.about, volume=True)
        case Kind.ORPHAN_NODE | Kind.EXTRA_NODE:
            node = await headscale.get_node(finding.about)
            record = await _find(parts, finding.agent_id)
            is_theirs = node is not None and agent_of(node.tags) == finding.agent_id
            if node is not None and is_theirs and (record is None or is_extra(node, record)):
                await headscale.delete_node(finding.about)
        case Kind.ORPHAN_KEY | Kind.EXTRA_KEY | Kind.SPENT_KEY:
            record = await _find(parts, finding.agent_id)
            if record is None or record.generation.preauth_key_id != finding.about:
                await headscale.expire_preauth_key(finding.about)
                await headscale.delete_preauth_key(finding.about)
        case Kind.LIVE_KEY:
            await headscale.expire_preauth_key(finding.about)
        case _:
            wake(finding.agent_id)


def _is_older(labels: Labels, record: Record) -> bool:
    return (labels.generation, labels.run) < (record.agent.generation, record.agent.run)


def _is_later(labels: Labels, record: Record) -> bool:
    return (labels.generation, labels.run) > (record.agent.generation, record.agent.run)


async def _find(parts: Parts, agent_id: str) -> Record | None:
    try:
        record = await parts.journal.load(agent_id)
    except NotFound:
        return None
    return None if record.agent.state is State.GONE else record
