"""Paths and handshakes as Prometheus sees them, and a tailscaled that does not answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.registry import Collector

from elizacloud.app.network_health import NetworkHealth, families
from elizacloud.tailnet import LocalApi
from elizacloud.tailnet.peers import Path as Way
from elizacloud.tailnet.peers import PeerPath

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def text_of(collector: Collector) -> str:
    registry = CollectorRegistry()
    registry.register(collector)
    return generate_latest(registry).decode()


def test_ways_and_handshakes() -> None:
    def seen(way: Way, seconds_ago: float | None) -> PeerPath:
        return PeerPath("7", way, None if seconds_ago is None else NOW - timedelta(seconds=seconds_ago))

    peers = [
        seen(Way.DIRECT, 5),
        seen(Way.DIRECT, 170),
        seen(Way.DERP, None),
        seen(Way.IDLE, 9000),
        seen(Way.IDLE, None),
    ]
    told = {(sample.name, *sample.labels.values()): sample.value for f in families(peers, NOW) for sample in f.samples}
    paths = "elizacloud_relay_peer_paths"
    assert told == {
        (paths, "direct"): 2,
        (paths, "derp"): 1,
        (paths, "peer_relay"): 0,
        (paths, "idle"): 2,
        ("elizacloud_relay_peers_without_handshake",): 1,
        ("elizacloud_relay_oldest_handshake_seconds",): 170,
    }


async def test_nothing_is_told_while_tailscaled_does_not_answer(tmp_path: Path) -> None:
    api = LocalApi(tmp_path / "missing.sock")
    health = NetworkHealth(api)
    await health.look()
    assert text_of(health) == ""
    await api.close()
