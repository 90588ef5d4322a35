"""What becomes of an agent whose state volume was lost: the same agent goes on as a new generation with an empty one."""

from __future__ import annotations

from elizacloud.agents.parts import Parts, StepFailed
from elizacloud.agents.place import Place
from elizacloud.model import Agent, Generation
from elizacloud.runtime.protocol import Inventory, Volume
from elizacloud.store import Record

FEW_AGENTS = 3
"""Of so few, all volumes may be lost at once; of more, it is their disk that is missing."""


async def volume_is_lost(parts: Parts, record: Record) -> bool:
    """True when an earlier run of this generation wrote to a volume that is not there, or not whole, any more.

    Raises StepFailed: `volumes_missing` when its host has no volume of any agent, `volume_elsewhere` when another host has it.
    """
    agent, run, place = record.agent, record.run, parts.place
    if agent.external or run is None or run.started_at is None:
        return False
    inventory = place.inventory_of(agent)
    if (volume := await _volume_of(agent, inventory, place)) is not None:
        return not volume.whole
    if not await inventory.list_volumes(place.installation_id):
        agents = await parts.store.agents.list_all()
        on_host = [other for other in agents if other.host_id == agent.host_id]
        if sum(1 for other in on_host if other.run > 0 and not other.external) > FEW_AGENTS:
            raise StepFailed(
                "the runtime has no state volume of any agent",
                code="volumes_missing",
                fix="Bring the runtime's disk back; if all state is lost for good, delete the agents.",
            )
    if len(place.host_ids) > 1 and await _volume_of(agent, place.runtime, place) is not None:
        raise StepFailed(
            "its state volume is on another host than its own",
            code="volume_elsewhere",
            fix="Give each host in docker_hosts the name that it had.",
        )
    return True


async def _volume_of(agent: Agent, inventory: Inventory, place: Place) -> Volume | None:
    for volume in await inventory.list_volumes(place.installation_id, agent_id=agent.id):
        if volume.agent_id == agent.id and volume.generation == agent.generation:
            return volume
    return None


async def begin_generation(parts: Parts, record: Record) -> Record:
    """A new identity on an empty volume. The old node and its key are left to the sweep, which knows them by their tag."""
    generation = Generation(record.agent.id, record.agent.generation + 1, created_at=parts.now())
    reason = "its state volume was lost; it begins anew with an empty one"
    begun = await parts.journal.save(record, step="begin generation", reason=reason, generation=generation)
    parts.untidy.set()
    return begun
