"""Which node is an agent's: pure checks of what Headscale lists. Hostname and address prove nothing and are not looked at.

A node key can be registered again with another agent's key, even with a spent one, and then carries that key's id while
its tags stay (hscontrol/state/state.go, v0.29.2): so both the key's id and the agent's own tag are required.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from elizacloud.headscale.client import USER
from elizacloud.headscale.protocol import Node, PreAuthKey
from elizacloud.model import Generation, agent_hostname, agent_tag, installation_tag


def has_joined(node: Node, generation: Generation) -> bool:
    """True when this node joined with the key that was minted for this generation, and has an address."""
    return (
        generation.preauth_key_id is not None
        and node.preauth_key_id == generation.preauth_key_id
        and agent_tag(generation.agent_id) in node.tags
        and node.ipv4 is not None
    )


def is_own(node: Node, agent_id: str, installation_id: str) -> bool:
    """True when this node is the agent's by its tags, whatever key it has."""
    return {agent_tag(agent_id), installation_tag(installation_id)} <= set(node.tags)


def has_anothers_key(node: Node, agent_id: str, keys: Iterable[PreAuthKey]) -> bool:
    """True when the agent's own node was registered again with a key that was not minted for the agent. One that was minted
    for it earlier is its own, and one that `keys` has no more says nothing."""
    key = next((key for key in keys if key.id == node.preauth_key_id), None)
    return key is not None and agent_tag(agent_id) not in key.tags


def pinned(generation: Generation, node: Node, now: datetime) -> Generation:
    """The generation with this node as its own."""
    return replace(
        generation,
        node_id=node.id,
        node_key=node.node_key,
        machine_key=node.machine_key,
        ipv4=node.ipv4,
        ipv6=node.ipv6,
        joined_at=generation.joined_at or now,
    )


def by_hand(node: Node, agent_id: str) -> str:
    """What somebody changed about the node's labels, as words for a sentence; empty when nothing. Nothing depends on them,
    but whoever looks for the agent by its name finds another one, or none."""
    label = agent_hostname(agent_id)
    if node.name != label:
        return f"it calls itself {node.name!r}"
    if node.given_name != label and not node.given_name.startswith(f"{label}-"):
        return f"it was renamed to {node.given_name!r}"
    if node.user not in (None, USER):
        return f"it was moved to the user {node.user!r}"
    return ""


def is_expired(node: Node, now: datetime) -> bool:
    """True when its machine has to log in again before any peer speaks with it. Headscale may show it online all the same."""
    return node.expires_at is not None and node.expires_at <= now


def drift(node: Node, generation: Generation) -> str:
    """What about the pinned node is no longer what was pinned, as words for a sentence; empty when nothing.

    A node key changes when a machine logs in again, which is its good right; the other three never do by themselves.
    """
    if node.id != generation.node_id:
        return f"it is node {node.id} and not {generation.node_id}"
    if agent_tag(generation.agent_id) not in node.tags:
        return "it no longer carries the agent's tag"
    if node.preauth_key_id != generation.preauth_key_id:
        return "it was registered again with another key"
    if generation.machine_key is not None and node.machine_key != generation.machine_key:
        return "it belongs to another machine"
    return ""
