"""How much of a worker one agent, one owner and one client address may use at a time. Each worker counts for itself.

Refusals are 429 with Retry-After, RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers). A stream is an
upgraded connection or server-sent events: it may last for days, so it does not count as a request in flight.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from elizacloud.errors import TooMany
from elizacloud.relay.edge import Request
from elizacloud.relay.forwarded import Peer

_RATE_WINDOW_SECONDS = 2
"""A bucket holds what its rate allows in this time, so that a page may load at once."""
_MOST_BUCKETS = 10_000


@dataclass(frozen=True, slots=True)
class LimitSettings:
    """The names are those of the settings."""

    agent_in_flight: int = 1000
    owner_in_flight: int = 2000
    agent_streams: int = 2000
    owner_streams: int = 10_000
    owner_requests_per_second: float | None = None
    agent_bytes_per_second: float | None = None
    owner_bytes_per_second: float | None = None
    connections_per_address: int = 1000
    dials_per_agent: int = 32


class _Level:
    """Things that are open now, by who they are counted for."""

    __slots__ = ("_open", "most", "name")

    def __init__(self, name: str, most: int) -> None:
        self.name = name
        self.most = most
        self._open: dict[str, int] = {}

    def full(self, key: str) -> bool:
        return self._open.get(key, 0) >= self.most

    def enter(self, key: str) -> int:
        now = self._open[key] = self._open.get(key, 0) + 1
        return now

    def leave(self, key: str) -> None:
        left = self._open[key] - 1
        if left:
            self._open[key] = left
        else:
            del self._open[key]


class Limits:
    """One a worker. `check` and `enter` belong into one step of the event loop."""

    def __init__(self, settings: LimitSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._connections = _Level("connections", settings.connections_per_address)
        self._requests = (
            _Level("agent-in-flight", settings.agent_in_flight),
            _Level("owner-in-flight", settings.owner_in_flight),
        )
        self._streams = (
            _Level("agent-streams", settings.agent_streams),
            _Level("owner-streams", settings.owner_streams),
        )
        self._rate = settings.owner_requests_per_second
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}
        """For each owner: what was left, and when."""

    def check(self, request: Request, *, stream: bool) -> None:
        """Return if one more may begin; its answer carries what is left. Raises TooMany."""
        if self._rate is not None:
            self._take(request, self._rate)
        self._check_room(request, stream)

    def check_stream(self, request: Request) -> None:
        """Return if a request that is in flight may become a stream. Raises TooMany."""
        self._check_room(request, True)

    def _check_room(self, request: Request, stream: bool) -> None:
        agent, owner = self._streams if stream else self._requests
        if not agent.full(request.agent_id) and not owner.full(request.owner_id):
            return
        for level, key in ((agent, request.agent_id), (owner, request.owner_id)):
            if level.full(key):
                request.edge_lines += (
                    f'RateLimit-Policy: "{level.name}";q={level.most};qu="concurrent-requests"\r\n'
                    f'RateLimit: "{level.name}";r=0\r\n'
                ).encode("ascii")
                what, whose = ("streams", "open") if stream else ("requests", "in flight")
                raise TooMany(
                    f"cannot take more {what}: {level.most} of this {level.name.partition('-')[0]} are {whose}; "
                    "let some end first",
                    code="too_many_streams" if stream else "too_many_requests",
                    retry_after_seconds=5 if stream else 1,
                )

    def enter(self, request: Request, *, stream: bool) -> None:
        agent, owner = self._streams if stream else self._requests
        agent.enter(request.agent_id)
        owner.enter(request.owner_id)

    def leave(self, request: Request, *, stream: bool) -> None:
        agent, owner = self._streams if stream else self._requests
        agent.leave(request.agent_id)
        owner.leave(request.owner_id)

    def connected(self, peer: Peer) -> int:
        """How many times its share of connections the address has now, this one included; 0 is fine."""
        if peer.trusted:
            return 0
        return (self._connections.enter(_neighbourhood(peer.address)) - 1) // self._connections.most

    def disconnected(self, peer: Peer) -> None:
        if not peer.trusted:
            self._connections.leave(_neighbourhood(peer.address))

    def _take(self, request: Request, rate: float) -> None:
        """One token of the owner's bucket."""
        now, most = self._clock(), max(1.0, rate * _RATE_WINDOW_SECONDS)
        left, then = self._buckets.get(request.owner_id, (most, now))
        left = min(most, left + (now - then) * rate)
        enough = left >= 1
        if enough:
            left -= 1
        if len(self._buckets) >= _MOST_BUCKETS:
            self._forget(now, rate, most)
        self._buckets[request.owner_id] = left, now
        window = math.ceil(most / rate)
        request.edge_lines += (
            f'RateLimit-Policy: "owner-requests";q={int(most)};w={window}\r\n'
            f'RateLimit: "owner-requests";r={int(left)};t={math.ceil((most - left) / rate)}\r\n'
        ).encode("ascii")
        if not enough:
            raise TooMany(
                f"cannot take more requests: the owner may send {rate:g} a second; slow down",
                code="too_many_requests",
                retry_after_seconds=(1 - left) / rate,
            )

    def _forget(self, now: float, rate: float, most: float) -> None:
        """Let go of the buckets that are full again."""
        self._buckets = {
            owner: (left, then) for owner, (left, then) in self._buckets.items() if left + (now - then) * rate < most
        }


def _neighbourhood(address: str) -> str:
    """What one customer of a network has: an IPv4 address, or 2^64 IPv6 ones."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False))
