"""What a tailscaled says of its peers: by which way packets go, and when WireGuard last shook hands. Pure.

Source: ipn/ipnstate/ipnstate.go (PeerStatus), tailscale v1.102.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


class Path(StrEnum):
    DIRECT = "direct"
    PEER_RELAY = "peer_relay"
    DERP = "derp"
    IDLE = "idle"


@dataclass(frozen=True, slots=True)
class PeerPath:
    node_id: str
    path: Path
    last_handshake: datetime | None


def peer_of(status: Mapping[str, Any]) -> PeerPath:
    return PeerPath(str(status.get("ID", "")), _path(status), _time(str(status.get("LastHandshake", ""))))


def _path(status: Mapping[str, Any]) -> Path:
    if not status.get("Active"):
        return Path.IDLE
    if status.get("CurAddr"):
        return Path.DIRECT
    return Path.PEER_RELAY if status.get("PeerRelay") else Path.DERP


def _time(text: str) -> datetime | None:
    """Go's zero time stands for never."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        return None
    return at if at.year > 1 and at.tzinfo is not None else None
