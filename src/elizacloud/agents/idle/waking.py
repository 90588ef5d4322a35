"""Who gets an agent woken: requests that a relay holds for it, within their owner's budget and through the gate of create.

All relays' workers ask, each once for all the requests that it holds; whoever asks second finds the agent waking already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from elizacloud.errors import Error, TooMany, Unavailable
from elizacloud.upstreams import Relays, WakeRefusal

log = structlog.get_logger()

HOUR_SECONDS = 3600.0
_REFUSED_SECONDS = 60.0


class OnlyPolled(Unavailable):
    """What was asked is a poll of a series, which went on while nobody used the agent."""

    code = "agent_asleep"

    def __init__(self) -> None:
        super().__init__(
            "cannot reach the agent: it is asleep, and polls of its health path do not wake it; any other request does",
            retry_after_seconds=_REFUSED_SECONDS,
        )


class WakeBudget:
    """An hour's worth at once, and then as many as come back with time. Each control plane counts for itself."""

    def __init__(self, per_hour: int | None) -> None:
        self._per_hour = per_hour
        self._used: dict[str, tuple[float, float]] = {}
        """By owner: how much was used, at a time of the loop."""

    def check(self, owner_id: str) -> None:
        """Raise TooMany `too_many_wakes` when the owner has used it up."""
        if self._per_hour is None:
            return
        over = self._now_used(owner_id) + 1 - self._per_hour
        if over > 0:
            raise TooMany(
                f"cannot wake the agent: its owner's may be woken {self._per_hour} times an hour; try later",
                code="too_many_wakes",
                retry_after_seconds=over * HOUR_SECONDS / self._per_hour,
            )

    def spend(self, owner_id: str) -> None:
        if self._per_hour is None:
            return
        self._used[owner_id] = (self._now_used(owner_id) + 1, _now())
        for other in [other for other in self._used if not self._now_used(other)]:
            del self._used[other]

    def _now_used(self, owner_id: str) -> float:
        assert self._per_hour is not None
        used, at = self._used.get(owner_id, (0.0, 0.0))
        return max(0.0, used - (_now() - at) * self._per_hour / HOUR_SECONDS)


class Waking:
    """`ask` from anywhere in the loop; `run` it once. `wake` wakes one agent, or raises an Error: Operations.wake."""

    def __init__(self, wake: Callable[[str, float | None], Awaitable[None]], relays: Relays) -> None:
        self._wake = wake
        self._relays = relays
        self._asked: dict[str, float | None] = {}
        """Agents in the order in which they were asked for; by polls alone, with the pause between them."""
        self._news = asyncio.Event()

    def ask(self, agent_id: str, poll_gap_seconds: float | None = None) -> None:
        """A relay holds a request for it, or a poll, the last one of which came so long ago."""
        self._asked[agent_id] = poll_gap_seconds if self._asked.get(agent_id, poll_gap_seconds) is not None else None
        self._news.set()

    async def run(self) -> None:
        """Until cancelled. One after another: each is two reads and a write."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._asked:
                agent_id = next(iter(self._asked))
                await self._serve(agent_id, self._asked.pop(agent_id))

    async def _serve(self, agent_id: str, poll_gap_seconds: float | None) -> None:
        try:
            await self._wake(agent_id, poll_gap_seconds)
        except (TooMany, OnlyPolled) as refused:
            log.debug("not woken", agent=agent_id, code=refused.reason)
            seconds = refused.retry_after_seconds or _REFUSED_SECONDS
            self._relays.refuse_wake(WakeRefusal(agent_id, str(refused), refused.reason, seconds))
        except Error as error:
            # The relay says that it is starting when its patience is over; the next request asks again.
            log.warning("cannot wake the agent", agent=agent_id, reason=str(error))


def _now() -> float:
    return asyncio.get_running_loop().time()
