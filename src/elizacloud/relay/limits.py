"""How much of a worker one agent, one owner and one client address may use at a time. Each worker counts for itself.

Refusals are 429 with Retry-After, RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10). A stream is an
upgraded connection or server-sent events: it may last for days, so it does not count as a request in flight.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from elizacloud.errors import TooMany
from elizacloud.relay.counts import Counts
from elizacloud.relay.edge import Request
from elizacloud.relay.headers.forwarded import Peer

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
    agent_requests_per_second: float | None = None
    owner_requests_per_second: float | None = None
    agent_bytes_per_second: float | None = None
    owner_bytes_per_second: float | None = None
    connections_per_address: int = 1000
    headless_per_address: int = 500
    dials_per_agent: int = 32


class _Level(Counts):
    """Of which each may have so many."""

    __slots__ = ("most", "name")

    def __init__(self, name: str, most: int) -> None:
        super().__init__()
        self.name = name
        self.most = most

    def full(self, key: str) -> bool:
        return self.get(key, 0) >= self.most


class Limits:
    """One a worker. `check` and `enter` belong into one step of the event loop."""

    def __init__(self, settings: LimitSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._connections = _Level("connections", settings.connections_per_address)
        self._headless = _Level("headless", settings.headless_per_address)
        self._handshakes = _Level("handshakes", settings.headless_per_address)
        self._requests = (
            _Level("agent-in-flight", settings.agent_in_flight),
            _Level("owner-in-flight", settings.owner_in_flight),
        )
        self._streams = (
            _Level("agent-streams", settings.agent_streams),
            _Level("owner-streams", settings.owner_streams),
        )
        self._rates = tuple(
            None if per_second is None else _Rate(name, per_second)
            for name, per_second in (
                ("agent-requests", settings.agent_requests_per_second),
                ("owner-requests", settings.owner_requests_per_second),
            )
        )
        self._rated = self._rates != (None, None)
        self._clock = clock

    def check(self, request: Request, *, stream: bool) -> None:
        """Return if one more may begin; its answer carries what is left. Raises TooMany."""
        if self._rated:
            self._take(request)
        agent, owner = self._streams if stream else self._requests
        if agent.get(request.agent_id, 0) >= agent.most or owner.get(request.owner_id, 0) >= owner.most:
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
        """How many times its share of connections, or of those without a head, the address has now; 0 is fine."""
        if peer.trusted:
            return 0
        key = _neighbourhood(peer.address)
        return max((level.enter(key) - 1) // level.most for level in (self._connections, self._headless))

    def handshake_began(self, peer: Peer) -> bool:
        """False, and nothing counted, when the address is in as many handshakes as it may have connections without a head."""
        if peer.trusted:
            return True
        key = _neighbourhood(peer.address)
        if self._handshakes.full(key):
            return False
        self._handshakes.enter(key)
        return True

    def handshake_ended(self, peer: Peer) -> None:
        if not peer.trusted:
            self._handshakes.leave(_neighbourhood(peer.address))

    def head_came(self, peer: Peer) -> None:
        """The connection has sent a whole head: its first."""
        if not peer.trusted:
            self._headless.leave(_neighbourhood(peer.address))

    def disconnected(self, peer: Peer, *, headless: bool) -> None:
        if not peer.trusted:
            self._connections.leave(_neighbourhood(peer.address))
            if headless:
                self._headless.leave(_neighbourhood(peer.address))

    def _take(self, request: Request) -> None:
        """One token of the agent's bucket and one of the owner's, or of neither."""
        now = self._clock()
        levels = [rate.look(key, now) for rate, key in self._keyed(request)]
        for (rate, key), left in zip(self._keyed(request), levels, strict=True):
            rate.keep(key, left - 1 if min(levels) >= 1 else left, now)
        told = [rate.told(key) for rate, key in self._keyed(request)]
        request.edge_lines += (
            f"RateLimit-Policy: {', '.join(policy for policy, _ in told)}\r\n"
            f"RateLimit: {', '.join(limit for _, limit in told)}\r\n"
        ).encode("ascii")
        for (rate, _), left in zip(self._keyed(request), levels, strict=True):
            if left < 1:
                raise TooMany(
                    f"cannot take more requests: this {rate.name.partition('-')[0]} may have {rate.per_second:g} a second; "
                    "slow down",
                    code="too_many_requests",
                    retry_after_seconds=(1 - left) / rate.per_second,
                )

    def _keyed(self, request: Request) -> Iterator[tuple[_Rate, str]]:
        for rate, key in zip(self._rates, (request.agent_id, request.owner_id), strict=True):
            if rate is not None:
                yield rate, key


class _Rate:
    """Buckets of tokens, one for each key: what was left, and when."""

    __slots__ = ("_buckets", "_most", "name", "per_second")

    def __init__(self, name: str, per_second: float) -> None:
        self.name = name
        self.per_second = per_second
        self._most = max(1.0, per_second * _RATE_WINDOW_SECONDS)
        self._buckets: dict[str, tuple[float, float]] = {}

    def look(self, key: str, now: float) -> float:
        left, then = self._buckets.get(key, (self._most, now))
        return min(self._most, left + (now - then) * self.per_second)

    def keep(self, key: str, left: float, now: float) -> None:
        if len(self._buckets) >= _MOST_BUCKETS:
            self._buckets = {
                other: bucket for other, bucket in self._buckets.items() if self.look(other, now) < self._most
            }
        self._buckets[key] = left, now

    def told(self, key: str) -> tuple[str, str]:
        """The members of RateLimit-Policy and RateLimit; `t` is when there is one more."""
        left, _ = self._buckets[key]
        window = math.ceil(self._most / self.per_second)
        next_one = math.ceil((int(left) + 1 - left) / self.per_second)
        return f'"{self.name}";q={int(self._most)};w={window}', f'"{self.name}";r={int(left)};t={next_one}'


@lru_cache(maxsize=4096)
def _neighbourhood(address: str) -> str:
    """What one customer of a network has: an IPv4 address, or 2^64 IPv6 ones."""
    if ":" not in address:
        return address
    return str(ipaddress.ip_network((address, 64), strict=False))
