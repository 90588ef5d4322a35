"""One look at everything outside the store. An error is raised, never turned into "there is nothing"."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from elizacloud.agents.place import Place
from elizacloud.beside import finish
from elizacloud.headscale.protocol import Node, PreAuthKey
from elizacloud.model import agent_tag, is_agent_id
from elizacloud.runtime.protocol import Instance, Volume


@dataclass(frozen=True, slots=True)
class Leftovers:
    """What of one agent is still there."""

    instances: tuple[Instance, ...] = ()
    nodes: tuple[Node, ...] = ()
    keys: tuple[PreAuthKey, ...] = ()
    volumes: tuple[Volume, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.instances or self.nodes or self.keys or self.volumes)

    def __str__(self) -> str:
        counts = {
            "instance": len(self.instances),
            "node": len(self.nodes),
            "key": len(self.keys),
            "volume": len(self.volumes),
        }
        return ", ".join(f"{count} {what}{'s' * (count > 1)}" for what, count in counts.items() if count)


@dataclass(frozen=True, slots=True)
class Outside:
    """All instances and volumes of this installation, and all nodes and keys of its Headscale, at about one moment."""

    instances: tuple[Instance, ...]
    nodes: tuple[Node, ...]
    keys: tuple[PreAuthKey, ...]
    volumes: tuple[Volume, ...] = ()

    def leftovers_of(self, agent_id: str, *, key_ids: frozenset[str], node_ids: frozenset[str]) -> Leftovers:
        """What carries the agent's id, label or tag, or is one of the keys and nodes that were recorded for it.

        A recorded one that carries another agent's tag is that agent's: a Headscale that was restored from a backup gives
        ids a second time.
        """
        tag = agent_tag(agent_id)
        return Leftovers(
            tuple(instance for instance in self.instances if instance.labels.agent_id == agent_id),
            tuple(
                node
                for node in self.nodes
                if tag in node.tags or (node.id in node_ids and not _names_an_agent(node.tags))
            ),
            tuple(key for key in self.keys if tag in key.tags or (key.id in key_ids and not _names_an_agent(key.tags))),
            tuple(volume for volume in self.volumes if volume.agent_id == agent_id),
        )


def ours(instances: Sequence[Instance], installation_id: str) -> tuple[Instance, ...]:
    """Those that we can have made, whatever else a runtime lists."""
    return tuple(
        instance
        for instance in instances
        if instance.labels.installation_id == installation_id and is_agent_id(instance.labels.agent_id)
    )


def _names_an_agent(tags: tuple[str, ...]) -> bool:
    return any(tag.startswith(agent_tag("")) for tag in tags)


async def look_outside(place: Place) -> Outside:
    """Ask the runtime and Headscale at once; raises RuntimeUnavailable, HeadscaleUnavailable and the like."""
    instances = asyncio.create_task(place.runtime.list(place.installation_id), name="list instances")
    volumes = asyncio.create_task(place.runtime.list_volumes(place.installation_id), name="list volumes")
    nodes = asyncio.create_task(place.headscale.list_nodes(), name="list nodes")
    keys = asyncio.create_task(place.headscale.list_preauth_keys(), name="list keys")
    await finish([instances, volumes, nodes, keys])
    return Outside(
        ours(instances.result(), place.installation_id),
        tuple(nodes.result()),
        tuple(keys.result()),
        tuple(volume for volume in volumes.result() if is_agent_id(volume.agent_id)),
    )
