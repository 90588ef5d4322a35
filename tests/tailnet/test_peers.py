"""What tailscaled's status of a peer means."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from elizacloud.tailnet.peers import Path, PeerPath, peer_of


@pytest.mark.parametrize(
    ("status", "path"),
    [
        ({"Active": True, "CurAddr": "192.0.2.1:41641", "Relay": "fra"}, Path.DIRECT),
        ({"Active": True, "CurAddr": "", "Relay": "fra"}, Path.DERP),
        ({"Active": True, "CurAddr": "", "PeerRelay": "192.0.2.1:1:vni:7", "Relay": "fra"}, Path.PEER_RELAY),
        ({"Active": False, "CurAddr": "192.0.2.1:41641"}, Path.IDLE),
        ({}, Path.IDLE),
    ],
)
def test_the_way_to_a_peer(status: dict[str, object], path: Path) -> None:
    assert peer_of(status).path is path


def test_the_last_handshake() -> None:
    shaken = peer_of({"ID": "7", "Active": True, "LastHandshake": "2026-01-02T03:04:05.123456789+00:00"})
    assert shaken == PeerPath("7", Path.DERP, datetime(2026, 1, 2, 3, 4, 5, 123456, UTC))
    for never in ("0001-01-01T00:00:00Z", "", "yesterday"):
        assert peer_of({"LastHandshake": never}).last_handshake is None
