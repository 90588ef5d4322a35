"""One look at everything outside the store. An error is raised, never turned into "there is nothing"."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from elizacloud.agents.place import Place
from elizacloud.agents.together import first_error
from elizacloud.errors import Error
from elizacloud.headscale.protocol import Node, PreAuthKey
from elizacloud.model import agent_tag
from elizacloud.runtime.protocol import Instance


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What of one agent is still there."""

    instances: tuple[Instance, ...] = ()
    nodes: tuple[Node, ...] = ()
    keys: tuple[PreAuthKey, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.instances or self.nodes or self.keys)

    def __str__(self) -> str:
        counts = {"instance": len(self.instances), "node": len(self.nodes), "key": len(self.keys)}
        return ", ".join(f"{count} {what}{'s' * (count > 1)}" for what, count in counts.items() if count)


@dataclass(frozen=True, slots=True)
class Outside:
    """All instances of this installation, and all nodes and keys of its Headscale, at about one moment."""

    instances: tuple[Instance, ...]
    nodes: tuple[Node, ...]
    keys: tuple[PreAuthKey, ...]

    def leftovers_of(self, agent_id: str, *, key_ids: frozenset[str], node_ids: frozenset[str]) -> Leftovers:
        """What carries the agent's id, label or tag, or is one of the keys and nodes that were recorded for it."""
        tag = agent_tag(agent_id)
        return Leftovers(
            tuple(instance for instance in self.instances if instance.labels.agent_id == agent_id),
            tuple(node for node in self.nodes if tag in node.tags or node.id in node_ids),
            tuple(key for key in self.keys if tag in key.tags or key.id in key_ids),
        )


async def look_outside(place: Place) -> Outside:
    """Ask the runtime and Headscale at once; raises RuntimeUnavailable, HeadscaleUnavailable and the like."""
    try:
        async with asyncio.TaskGroup() as tasks:
            instances = tasks.create_task(place.runtime.list(place.installation_id), name="list instances")
            nodes = tasks.create_task(place.headscale.list_nodes(), name="list nodes")
            keys = tasks.create_task(place.headscale.list_preauth_keys(), name="list keys")
    except* Error as errors:
        raise first_error(errors) from errors
    return Outside(tuple(instances.result()), tuple(nodes.result()), tuple(keys.result()))
