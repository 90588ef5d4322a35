"""What an operator may see and do, across owners: the three truths of an agent side by side with its answer, and a sweep now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from elizacloud.agents.messages import message
from elizacloud.agents.parts import Parts
from elizacloud.agents.reconcile.diff import Finding
from elizacloud.agents.reconcile.guards import Verdict
from elizacloud.agents.reconcile.observe import Outside, ours
from elizacloud.agents.reconcile.sweep import Sweeper
from elizacloud.agents.sharing.elsewhere import Elsewhere
from elizacloud.agents.sharing.hold import Holds
from elizacloud.agents.steps.joining import PROBE_SECONDS
from elizacloud.agents.steps.resting import why_of
from elizacloud.agents.told import upstream_of
from elizacloud.errors import Error, NotFound
from elizacloud.headscale.protocol import Node, PreAuthKey
from elizacloud.model import Generation
from elizacloud.runtime.protocol import Instance, Volume
from elizacloud.states import Due, State, next_step
from elizacloud.store import Record
from elizacloud.upstreams import Probe

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Looked(Generic[T]):
    """What a look found, or why it found out nothing: that is not the same as nothing."""

    found: Sequence[T] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Explained:
    """`findings` are those of the last sweep; `why` says why it runs or rests; `due` is the step that comes next, if any.

    `answer` is what a relay got from the agent just now; None of one that is not up.
    """

    record: Record
    generations: Sequence[Generation]
    instances: Looked[Instance]
    volumes: Looked[Volume]
    nodes: Looked[Node]
    keys: Looked[PreAuthKey]
    findings: Looked[Finding]
    answer: Probe | None
    message: str
    why: str
    due: Due | None


class Oversight:
    def __init__(self, parts: Parts, sweeper: Sweeper, holds: Holds, elsewhere: Elsewhere | None) -> None:
        """`elsewhere` is None when no other control plane can be."""
        self._parts = parts
        self._sweeper = sweeper
        self._holds = holds
        self._elsewhere = elsewhere

    async def sweep(self, *, dry_run: bool, accept: bool) -> Verdict:
        """As Sweeper.sweep, by whichever control plane leads: it alone knows what was there in the sweep before.

        Headscale is accepted here first: while it is not the right one, a control plane that starts leads nothing, and none
        may lead.
        """
        memory = self._parts.memory
        if accept and not dry_run:
            await memory.accept_headscale()
        elif memory.refusal:
            await memory.check_headscale()
        if self._elsewhere is not None and self._holds.lead() is None:
            return await self._elsewhere.sweep(dry_run=dry_run, accept=accept)
        return await self._sweeper.sweep(dry_run=dry_run, accept=accept)

    async def explain(self, agent_id: str) -> Explained:
        """Whoever's agent it is; NotFound `agent_not_found`. What does not answer is told in its place."""
        place, agents = self._parts.place, self._parts.store.agents
        try:
            record = await agents.record(agent_id)
        except NotFound:
            raise NotFound("cannot find this agent: check its id", code="agent_not_found") from None
        generations = await agents.generations(agent_id)
        installation_id = place.installation_id
        instances = await _looked(lambda: place.inventory_of(record.agent).list(installation_id))
        volumes = await _looked(
            lambda: place.inventory_of(record.agent).list_volumes(installation_id, agent_id=agent_id)
        )
        nodes = await _looked(place.headscale.list_nodes)
        keys = await _looked(place.headscale.list_preauth_keys)
        mine = Outside(
            ours(instances.found, installation_id), tuple(nodes.found), tuple(keys.found), tuple(volumes.found)
        ).leftovers_of(
            agent_id,
            key_ids=frozenset(one.preauth_key_id for one in generations if one.preauth_key_id),
            node_ids=frozenset(one.node_id for one in generations if one.node_id),
        )
        agent = record.agent
        return Explained(
            record,
            generations,
            Looked(mine.instances, instances.error),
            Looked(mine.volumes, volumes.error),
            Looked(mine.nodes, nodes.error),
            Looked(mine.keys, keys.error),
            await _looked(lambda: self._found(agent_id)),
            await self._asked(record),
            message(agent),
            await why_of(self._parts, record),
            None if agent.state is State.GONE else next_step(agent.state, agent.wanted),
        )

    async def _asked(self, record: Record) -> Probe | None:
        if record.agent.state not in (State.JOINED, State.READY):
            return None
        try:
            return await self._parts.relays.probe(upstream_of(record), within_seconds=PROBE_SECONDS)
        except Error as error:
            return Probe(None, error=str(error))

    async def _found(self, agent_id: str) -> Sequence[Finding]:
        if self._elsewhere is not None and self._holds.lead() is None:
            return await self._elsewhere.findings(agent_id)
        return [finding for finding in self._sweeper.findings if finding.agent_id == agent_id]


async def _looked(look: Callable[[], Awaitable[Sequence[T]]]) -> Looked[T]:
    try:
        return Looked(await look())
    except Error as error:
        return Looked(error=str(error))
