"""How fast bytes may pass, for one agent and for one owner, both directions counted together. Each worker for itself.

Nothing is cut and nothing is held: what was read passes at once, and if that was more than the rate allows, its source is
not read until the debt is paid off. So the sender is slowed by TCP, whatever it sends: a body, events or an upgrade.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

_BURST_SECONDS = 1.0
"""Who was slower than its rate may make up for so much of it at once."""
_MOST_BUCKETS = 10_000


class Ends(Protocol):
    """Both sides of an exchange. Told that one of them takes bytes again, it lets the other one be read."""

    def client_writable(self, writable: bool) -> None: ...

    def upstream_writable(self, writable: bool) -> None: ...


class Bucket:
    """Bytes that may pass now; less than none is a debt that time pays off."""

    __slots__ = ("_left", "_then", "rate")

    def __init__(self, rate: float, now: float) -> None:
        self.rate = rate
        self._left = rate * _BURST_SECONDS
        self._then = now

    def take(self, size: int, now: float) -> float:
        """Let so many bytes pass; return the seconds until the next ones may."""
        rate = self.rate
        left = min(rate * _BURST_SECONDS, self._left + (now - self._then) * rate) - size
        self._left, self._then = left, now
        return -left / rate if left < 0 else 0.0


class Throttle:
    """One a worker."""

    def __init__(self, agent_bytes_per_second: float | None, owner_bytes_per_second: float | None) -> None:
        self._rates = (("agent", agent_bytes_per_second), ("owner", owner_bytes_per_second))
        self.limited = agent_bytes_per_second is not None or owner_bytes_per_second is not None
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._loop = asyncio.get_running_loop()

    def flow(self, agent_id: str, owner_id: str) -> Flow | None:
        """For one exchange; None when no limit is set."""
        if not self.limited:
            return None
        now = self._loop.time()
        buckets = []
        for (kind, rate), key in zip(self._rates, (agent_id, owner_id), strict=True):
            if rate is not None:
                bucket = self._buckets.get((kind, key))
                if bucket is None:
                    if len(self._buckets) >= _MOST_BUCKETS:
                        self._forget(now)
                    bucket = self._buckets[kind, key] = Bucket(rate, now)
                buckets.append(bucket)
        return Flow(buckets, self._loop)

    def _forget(self, now: float) -> None:
        """Let go of the buckets without a debt: at worst, an exchange that has one begins a burst anew."""
        self._buckets = {key: bucket for key, bucket in self._buckets.items() if bucket.take(0, now)}


class Flow:
    """The bytes of one exchange, in both directions."""

    __slots__ = ("_buckets", "_loop", "down", "up")

    def __init__(self, buckets: list[Bucket], loop: asyncio.AbstractEventLoop) -> None:
        self._buckets = buckets
        self._loop = loop
        self.up = Valve(self)
        """From the client to the upstream."""
        self.down = Valve(self)

    def between(self, ends: Ends) -> None:
        """Whom to tell when a debt is paid off."""
        self.up.reopen, self.down.reopen = ends.upstream_writable, ends.client_writable

    def passed(self, size: int) -> float:
        """Count bytes; return the seconds until the next ones may pass."""
        now = self._loop.time()
        return max(bucket.take(size, now) for bucket in self._buckets)

    async def paid_off(self) -> None:
        """Wait until there is no debt: one exchange after another must not be faster than a long one."""
        while (seconds := self.passed(0)) > 0:
            await asyncio.sleep(seconds)

    def later(self, seconds: float, then: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_later(seconds, then)

    def close(self) -> None:
        self.up.close()
        self.down.close()


class Valve:
    """One direction: its source may be read while the other side takes bytes and no debt waits to be paid off."""

    __slots__ = ("_flow", "_timer", "_writable", "reopen")

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._timer: asyncio.TimerHandle | None = None
        self._writable = True
        self.reopen: Callable[[bool], None] = _nobody

    def must_close(self, size: int) -> bool:
        """These bytes passed: True when their source must not be read now."""
        if self._timer is None and (seconds := self._flow.passed(size)) > 0:
            self._timer = self._flow.later(seconds, self._paid_off)
        elif self._timer is not None:
            self._flow.passed(size)
        return self._timer is not None

    def may_open(self, writable: bool) -> bool:
        """The other side says whether it takes bytes: True when the source may be read now."""
        self._writable = writable
        return writable and self._timer is None

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _paid_off(self) -> None:
        self._timer = None
        if self._writable:
            self.reopen(True)


def _nobody(writable: bool) -> None:
    pass
