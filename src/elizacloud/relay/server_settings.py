"""How long a client may take, and how much it may send."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ServerSettings:
    headers_timeout_seconds: float
    idle_timeout_seconds: float = 75.0
    """Longest time between two requests on one connection."""
    body_timeout_seconds: float = 30.0
    body_bytes_per_second: int = 64
    """While a body is awaited, this much must come on average in each such time."""
    max_body_bytes: int | None = None
