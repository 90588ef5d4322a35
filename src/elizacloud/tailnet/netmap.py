"""Who is on the tailnet, as one tailscaled sees it: folded from its bus' events. Pure.

The rule of replacement is tailscaled's own (ipn/ipnlocal/local.go, v1.102.3): `SelfChange` is only sent with a whole new
netmap, so `PeersChanged` beside it is every peer there is (absent: none); without it, it is a delta. A deleted node is
only noticed this way. With Headscale, NodeID, StableID and its own node id are the same number.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from elizacloud.tailnet.bus import HAS_NETMAP, Event, state_of


@dataclass(frozen=True, slots=True)
class Peer:
    """Another machine on the tailnet. `tags` are what Headscale gave it; `name` is a label that it gave itself."""

    node_id: str
    ips: tuple[str, ...]
    tags: frozenset[str]
    node_key: str
    name: str
    online: bool


@dataclass(frozen=True, slots=True)
class PeerChange:
    """One peer, before and after an event; None is "not there"."""

    before: Peer | None
    after: Peer | None

    @property
    def identity(self) -> bool:
        """True unless only the online flag or the name changed: connections to its addresses must be dropped."""
        before, after = self.before, self.after
        if before is None or after is None:
            return True
        return (before.ips, before.tags, before.node_key) != (after.ips, after.tags, after.node_key)


class Netmap:
    """The peers, and never this machine itself: its own address leads to the host's loopback (lab, measured)."""

    def __init__(self, *, trusted_seconds: float = math.inf, clock: Callable[[], float] = time.monotonic) -> None:
        """Without news it is trusted for so long, however busy or frozen this process is: `heard` says that it is current."""
        self.self_ips: frozenset[str] = frozenset()
        self._trusted_seconds = trusted_seconds
        self._clock = clock
        self._trusted_until = -math.inf
        self._peers: dict[str, Peer] = {}
        self._by_ip: dict[str, Peer | None] = {}

    def __repr__(self) -> str:
        return f"<Netmap {len(self._peers)} peers{'' if self.known else ', not current'}>"

    @property
    def known(self) -> bool:
        """False before the first netmap and while the events are not followed: then nothing here may be trusted."""
        return self._clock() <= self._trusted_until

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._peers.values())

    def __len__(self) -> int:
        return len(self._peers)

    def peer_at(self, ip: str) -> Peer | None:
        """The one peer that has this address; None for an unknown, an ambiguous or our own address, or when not known."""
        return self._by_ip.get(ip) if self.known else None

    def peer(self, node_id: str) -> Peer | None:
        return self._peers.get(node_id) if self.known else None

    def lost(self) -> None:
        """The events are no longer followed; the next whole netmap makes it current again."""
        self._trusted_until = -math.inf

    def heard(self) -> None:
        """What is here is current at this moment. Nothing else makes a netmap known again that was not, but a whole one."""
        if self.known:
            self._trust()

    def _trust(self) -> None:
        self._trusted_until = self._clock() + self._trusted_seconds

    def apply(self, event: Event) -> tuple[PeerChange, ...]:
        """Take in one event of a bus watched with WATCH_NETMAP; return what it changed."""
        peers = self._after(event)
        return () if peers is None else self._become(peers)

    def replace(self, self_ips: Iterable[str], peers: Iterable[Peer]) -> tuple[PeerChange, ...]:
        """Be this netmap from now on, known whatever was before; return what changed."""
        self._trust()
        self.self_ips = frozenset(self_ips)
        return self._become(_by_id(peers))

    def change(self, self_ips: Iterable[str], changes: Iterable[PeerChange]) -> tuple[PeerChange, ...]:
        """Take in what `apply` returned for another netmap that was like this one; return what it changed here."""
        self.self_ips = frozenset(self_ips)
        peers = dict(self._peers)
        for change in changes:
            if change.before is not None:
                peers.pop(change.before.node_id, None)
            if change.after is not None:
                peers[change.after.node_id] = change.after
        return self._become(peers)

    def _become(self, peers: dict[str, Peer]) -> tuple[PeerChange, ...]:
        before, self._peers = self._peers, peers
        self._index()
        ids = dict.fromkeys([*before, *peers])
        return tuple(
            PeerChange(before.get(node_id), peers.get(node_id))
            for node_id in ids
            if before.get(node_id) != peers.get(node_id)
        )

    def _after(self, event: Event) -> dict[str, Peer] | None:
        """The peers after the event, or None when it is not about them."""
        if status := event.get("InitialStatus"):
            self._trust()
            self.self_ips = frozenset(status.get("TailscaleIPs") or ())
            return _by_id(_from_status(peer) for peer in (status.get("Peer") or {}).values())
        state = state_of(event)
        if state is not None and state not in HAS_NETMAP:
            return {}
        changed = [_from_node(node) for node in event.get("PeersChanged") or ()]
        if node := event.get("SelfChange"):
            self.self_ips = frozenset(_addresses(node))
            return _by_id(changed)
        removed = {str(node_id) for node_id in event.get("PeersRemoved") or ()}
        patches = event.get("PeerChangedPatch") or ()
        if not (changed or removed or patches):
            return None
        peers = {node_id: peer for node_id, peer in self._peers.items() if node_id not in removed} | _by_id(changed)
        for patch in patches:
            peer = peers.get(str(patch.get("NodeID")))
            if peer is not None:
                peers[peer.node_id] = _patched(peer, patch)
        return peers

    def _index(self) -> None:
        self._by_ip = {}
        for peer in self._peers.values():
            for ip in peer.ips:
                # Two peers with one address: nobody can say who answers, so neither may be dialled.
                self._by_ip[ip] = None if ip in self._by_ip or ip in self.self_ips else peer


def _by_id(peers: Iterable[Peer]) -> dict[str, Peer]:
    return {peer.node_id: peer for peer in peers}


def _from_status(peer: Mapping[str, Any]) -> Peer:
    """ipnstate.PeerStatus."""
    return Peer(
        node_id=str(peer.get("ID", "")),
        ips=tuple(peer.get("TailscaleIPs") or ()),
        tags=frozenset(peer.get("Tags") or ()),
        node_key=str(peer.get("PublicKey", "")),
        name=str(peer.get("HostName", "")),
        online=bool(peer.get("Online")),
    )


def _from_node(node: Mapping[str, Any]) -> Peer:
    """tailcfg.Node."""
    return Peer(
        node_id=str(node.get("StableID") or node.get("ID", "")),
        ips=_addresses(node),
        tags=frozenset(node.get("Tags") or ()),
        node_key=str(node.get("Key", "")),
        name=str((node.get("Hostinfo") or {}).get("Hostname", "")),
        online=bool(node.get("Online")),
    )


def _patched(peer: Peer, patch: Mapping[str, Any]) -> Peer:
    """tailcfg.PeerChange, of which only these two matter here."""
    online, key = patch.get("Online"), patch.get("Key")
    return replace(
        peer,
        online=peer.online if online is None else bool(online),
        node_key=peer.node_key if key is None else str(key),
    )


def _addresses(node: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(prefix).partition("/")[0] for prefix in node.get("Addresses") or ())
