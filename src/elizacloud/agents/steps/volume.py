"""What becomes of an agent whose state volume was lost: the same agent goes on as a new generation with an empty one."""

from __future__ import annotations

from elizacloud.agents.parts import Parts, StepFailed
from elizacloud.model import Generation
from elizacloud.store import Record

FEW_AGENTS = 3
"""Of so few, all volumes may be lost at once; of more, it is their disk that is missing."""


async def volume_is_lost(parts: Parts, record: Record) -> bool:
    """True when an earlier run of this generation wrote to a volume that is not there, or not whole, any more.

    Raises StepFailed `volumes_missing` when the runtime has no volume of any agent.
    """
    agent, run, place = record.agent, record.run, parts.place
    if agent.external or run is None or run.started_at is None:
        return False
    for volume in await place.runtime.list_volumes(place.installation_id, agent_id=agent.id):
        if volume.agent_id == agent.id and volume.generation == agent.generation:
            return not volume.whole
    if not await place.runtime.list_volumes(place.installation_id):
        agents = await parts.store.agents.list_all()
        if sum(1 for other in agents if other.run > 0 and not other.external) > FEW_AGENTS:
            raise StepFailed(
                "the runtime has no state volume of any agent",
                code="volumes_missing",
                fix="Bring the runtime's disk back; if all state is lost for good, delete the agents.",
            )
    return True


async def begin_generation(parts: Parts, record: Record) -> Record:
    """A new identity on an empty volume. The old node and its key are left to the sweep, which knows them by their tag."""
    generation = Generation(record.agent.id, record.agent.generation + 1, created_at=parts.now())
    reason = "its state volume was lost; it begins anew with an empty one"
    begun = await parts.journal.save(record, step="begin generation", reason=reason, generation=generation)
    parts.untidy.set()
    return begun
