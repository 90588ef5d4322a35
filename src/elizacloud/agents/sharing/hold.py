"""A lease that this control plane has now. Whatever is done under it is cut off when it ends.

Its end is reckoned from the moment at which the renewal was sent, on a clock that nobody sets: so it comes before the end
that the database knows of, also for a process that was stopped meanwhile.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol, TypeVar, cast

from elizacloud.errors import LeaseLost
from elizacloud.store import Fence

T = TypeVar("T")

NEEDED_SECONDS = 5.0
"""What has to be left of a lease for a call outside to begin."""


class Hold:
    def __init__(self, fence: Fence | None, ends_at: float, *, needed_seconds: float = NEEDED_SECONDS) -> None:
        """`ends_at` is a time of the loop; no `fence` where no other control plane can be."""
        self.fence = fence
        self.is_leaving = False
        """It is about to be given up: nothing new is begun under it."""
        self._ends_at = ends_at
        self._needed_seconds = needed_seconds
        self._running: set[asyncio.Timeout] = set()

    @property
    def is_over(self) -> bool:
        return self.fence is not None and asyncio.get_running_loop().time() >= self._ends_at

    @property
    def is_idle(self) -> bool:
        return not self._running

    def keep(self, ends_at: float) -> None:
        """It was renewed; what runs may go on until then. What is over stays over."""
        if self.is_over:
            return
        self._move(ends_at, ends_at)

    def end(self) -> None:
        """It is lost or given up: what runs is cut off."""
        self._move(-math.inf, asyncio.get_running_loop().time())

    def _move(self, ends_at: float, cut_at: float) -> None:
        self._ends_at = ends_at
        for running in self._running:
            if not running.expired():  # what is being cut off cannot be cut off again
                running.reschedule(cut_at)

    def check(self) -> None:
        """Raise LeaseLost unless enough of it is left to begin something."""
        if self.fence is not None and asyncio.get_running_loop().time() + self._needed_seconds > self._ends_at:
            raise _lost(self.fence)

    @asynccontextmanager
    async def under(self) -> AsyncIterator[None]:
        """The block is cut off, with LeaseLost, when the lease ends."""
        if self.fence is None:
            yield
            return
        running = asyncio.timeout_at(self._ends_at)
        self._running.add(running)
        try:
            async with running:
                yield
        except TimeoutError:
            if running.expired():
                raise _lost(self.fence) from None
            raise
        finally:
            self._running.discard(running)


class Holds(Protocol):
    """What this control plane may do now."""

    def of(self, agent_id: str) -> Hold | None:
        """The lease under which it drives the agent; None when that is another one's work, or about to be."""

    def lead(self) -> Hold | None:
        """The lease for sweeps and pruning; None when that is another one's work."""

    async def leading(self) -> Hold:
        """The same, as soon as it is ours."""


class Alone:
    """The only control plane there is: it may do everything, for as long as it runs."""

    def __init__(self) -> None:
        self._hold = Hold(None, math.inf)

    def of(self, agent_id: str) -> Hold | None:
        return self._hold

    def lead(self) -> Hold | None:
        return self._hold

    async def leading(self) -> Hold:
        return self._hold


class _Guarded:
    def __init__(self, target: Any, hold: Hold) -> None:
        self._target = target
        self._hold = hold

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self._target, name)
        return self._guarded(attribute) if asyncio.iscoroutinefunction(attribute) else attribute

    def _guarded(self, call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def guarded(*positional: Any, **named: Any) -> Any:
            self._hold.check()
            answer = await call(*positional, **named)
            if self._hold.is_over:
                assert self._hold.fence is not None
                raise _lost(self._hold.fence)
            return answer

        return guarded


def guarded(target: T, hold: Hold) -> T:
    """The same thing, whose calls begin only while enough of the lease is left, and whose late answers count for nothing."""
    return target if hold.fence is None else cast(T, _Guarded(target, hold))


def _lost(fence: Fence) -> LeaseLost:
    return LeaseLost(f"cannot go on: the lease {fence.name!r} has ended; another control plane takes over")
