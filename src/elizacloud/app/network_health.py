"""How the relay's tailscaled reaches its peers, for Prometheus: directly or through a DERP server, and whether WireGuard's
handshakes get through. Looked at when somebody asks; while tailscaled does not answer, nothing is told.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from elizacloud.errors import Refused, TailnetUnavailable
from elizacloud.tailnet.localapi import LocalApi
from elizacloud.tailnet.peers import Path, PeerPath

LOOK_SECONDS = 1.5


class NetworkHealth(Collector):
    """`look`, then `collect` tells what was seen."""

    def __init__(self, tailscaled: LocalApi) -> None:
        self._tailscaled = tailscaled
        self._seen: Sequence[PeerPath] | None = None

    async def look(self) -> None:
        self._seen = None
        with suppress(TailnetUnavailable, Refused, TimeoutError):
            async with asyncio.timeout(LOOK_SECONDS):
                self._seen = await self._tailscaled.peers()

    def collect(self) -> Iterator[Metric]:
        return iter(()) if self._seen is None else families(self._seen, datetime.now(UTC))


def families(peers: Sequence[PeerPath], now: datetime) -> Iterator[Metric]:
    paths = GaugeMetricFamily(
        "elizacloud_relay_peer_paths",
        "Peers by the way that packets take; idle are those without traffic lately, which have none",
        labels=["path"],
    )
    counts = Counter(peer.path for peer in peers)
    for path in Path:
        paths.add_metric([path.value], counts[path])
    yield paths
    used = [peer for peer in peers if peer.path is not Path.IDLE]
    yield GaugeMetricFamily(
        "elizacloud_relay_peers_without_handshake",
        "Peers with traffic that have not answered a handshake of WireGuard yet",
        value=sum(peer.last_handshake is None for peer in used),
    )
    ages = [(now - peer.last_handshake).total_seconds() for peer in used if peer.last_handshake is not None]
    yield GaugeMetricFamily(
        "elizacloud_relay_oldest_handshake_seconds",
        "Age of the oldest last handshake among peers with traffic; WireGuard renews each after 120 s, over 180 s one failed",
        value=max(ages, default=0.0),
    )
