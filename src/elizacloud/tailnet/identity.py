"""Is the peer at an upstream's address the agent we mean? Pure; asked before every dial and again after it.

Headscale hands freed addresses to other tenants, so an address proves nothing; the node id is pinned at the join and the
tag comes from a pre-auth key that only we mint. Both must match, in this relay's own netmap.
"""

from __future__ import annotations

from elizacloud.model import agent_tag
from elizacloud.tailnet.netmap import Netmap
from elizacloud.upstreams import Upstream


def mismatch(netmap: Netmap, upstream: Upstream) -> str | None:
    """Why nothing may be sent to this upstream now, as a sentence for logs; None when the peer is the agent."""
    if not netmap.known:
        return "the netmap is not current"
    peer = netmap.peer_at(upstream.ip)
    if peer is None:
        return f"no peer has the address {upstream.ip}"
    if peer.node_id != upstream.node_id:
        return f"{upstream.ip} belongs to node {peer.node_id}, not {upstream.node_id}"
    if agent_tag(upstream.agent_id) not in peer.tags:
        return f"node {peer.node_id} does not carry the agent's tag"
    return None
