"""Finds the node that an agent joined as, with as few calls to Headscale as can be: each costs it a bcrypt.

Headscale has no events. What a relay sees in its netmap names the agent (by its tag) and the node, so that one `get_node`
decides; a container's report says that it is time to look. Behind both is a slow poll, one list for all who wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from elizacloud.agents.identity import has_joined
from elizacloud.agents.shared_look import SharedLook
from elizacloud.headscale.protocol import Headscale, Node
from elizacloud.model import Generation, is_agent_id
from elizacloud.upstreams import PeerSeen

_AGENT_TAG = "tag:a-"
_GAP_SECONDS = 0.5
_FIRST_POLL_SECONDS = 2.0
"""How long to wait for a hint before the first look without one."""


def agent_of(peer: PeerSeen) -> str | None:
    """The agent that a peer's tags name."""
    names = (tag.removeprefix(_AGENT_TAG) for tag in peer.tags if tag.startswith(_AGENT_TAG))
    return next((name for name in names if is_agent_id(name)), None)


@dataclass(slots=True)
class _Hints:
    """What came in about an agent since it was expected to join, at a time of the loop."""

    since: float
    peer: PeerSeen | None = None
    reported_at: float | None = None


class Lookout:
    def __init__(self, headscale: Headscale, *, poll_seconds: float) -> None:
        self._headscale = headscale
        self._poll_seconds = poll_seconds
        self._first_poll_seconds = min(_FIRST_POLL_SECONDS, poll_seconds)
        self._hints: dict[str, _Hints] = {}
        self._nodes = SharedLook(headscale.list_nodes, gap_seconds=min(_GAP_SECONDS, poll_seconds))

    def expect(self, agent_id: str) -> None:
        """Its instance is about to start: what was heard of it before says nothing about this run."""
        self._hints[agent_id] = _Hints(_now())

    def saw(self, peer: PeerSeen) -> str | None:
        """Note what a relay saw; returns the agent that it is about, if any."""
        agent_id = agent_of(peer)
        if agent_id is not None and peer.online:
            self._of(agent_id).peer = peer
        return agent_id

    def reported(self, agent_id: str) -> None:
        """Note that the agent's container says that it joined."""
        self._of(agent_id).reported_at = _now()

    def forget(self, agent_id: str) -> None:
        self._hints.pop(agent_id, None)

    def next_look_seconds(self, agent_id: str) -> float:
        """When to look again if no hint comes."""
        until_first = self._of(agent_id).since + self._first_poll_seconds - _now()
        return until_first if until_first > 0 else self._poll_seconds

    async def find(self, generation: Generation) -> Node | None:
        """The node that joined with this generation's key and carries its agent's tag, or None while there is none.

        Looks only for a reason: a hint, or time gone by without one. Raises what Headscale's client raises.
        """
        hints = self._of(generation.agent_id)
        overdue = _now() - hints.since >= self._first_poll_seconds
        if generation.node_id is not None:
            if hints.peer is None and hints.reported_at is None and not overdue:
                return None
            node = await self._headscale.get_node(generation.node_id)
            # Headscale notices a stop 10 s late, but shows a node that is back at once.
            return node if node is not None and node.online and has_joined(node, generation) else None
        if hints.peer is not None:
            node = await self._headscale.get_node(hints.peer.node_id)
            if node is not None and has_joined(node, generation):
                return node
        if hints.reported_at is None and not overdue:
            return None
        # Half an interval old is good enough: so however many wait, there are at most two lists an interval.
        oldest = _now() - self._poll_seconds / 2
        nodes = await self._nodes.get(since=max(oldest, hints.reported_at or oldest))
        return next((node for node in nodes if has_joined(node, generation)), None)

    async def listed(self) -> Sequence[Node]:
        """All nodes, as far as a list shows them that is not older than an interval."""
        return await self._nodes.get(since=_now() - self._poll_seconds)

    def _of(self, agent_id: str) -> _Hints:
        return self._hints.setdefault(agent_id, _Hints(_now()))


def _now() -> float:
    return asyncio.get_running_loop().time()
