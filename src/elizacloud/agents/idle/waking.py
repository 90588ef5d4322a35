"""Who gets an agent woken: requests that a relay holds for it, within their owner's budget and through the gate of create.

All relays' workers ask, each once for all the requests that it holds; whoever asks second finds the agent waking already.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from elizacloud.errors import Conflict, Error, TooMany, Unavailable
from elizacloud.upstreams import Relays, WakeRefusal

log = structlog.get_logger()

_REFUSED_SECONDS = 60.0
_AGAIN_SECONDS = 2.0
_MORE_TRIES = 4
"""With the pauses between them as long as a relay holds a request (wake_hold_seconds); whoever comes later asks anew."""


class OnlyPolled(Unavailable):
    """What was asked is a poll of a series, which went on while nobody used the agent."""

    code = "agent_asleep"

    def __init__(self) -> None:
        super().__init__(
            "cannot reach the agent: it is asleep, and polls of its health path do not wake it; any other request does",
            retry_after_seconds=_REFUSED_SECONDS,
        )


class Waking:
    """`ask` from anywhere in the loop; `run` it once. `wake` wakes one agent, or raises an Error: Operations.wake."""

    def __init__(self, wake: Callable[[str, float | None], Awaitable[None]], relays: Relays) -> None:
        self._wake = wake
        self._relays = relays
        self._asked: dict[str, float | None] = {}
        """Agents in the order in which they were asked for; by polls alone, with the pause between them."""
        self._news = asyncio.Event()
        self._again: dict[str, tuple[int, asyncio.TimerHandle]] = {}
        """By agent: how often it failed, and what asks again."""

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
        failures = 0
        if agent_id in self._again:
            failures, timer = self._again.pop(agent_id)
            timer.cancel()
        try:
            await self._wake(agent_id, poll_gap_seconds)
        except (TooMany, OnlyPolled) as refused:
            log.debug("not woken", agent=agent_id, code=refused.reason)
            seconds = refused.retry_after_seconds or _REFUSED_SECONDS
            self._relays.refuse_wake(WakeRefusal(agent_id, str(refused), refused.reason, seconds))
        except (Unavailable, Conflict) as error:
            log.warning("cannot wake the agent yet", agent=agent_id, reason=str(error))
            if failures < _MORE_TRIES:
                timer = asyncio.get_running_loop().call_later(_AGAIN_SECONDS, self.ask, agent_id, poll_gap_seconds)
                self._again[agent_id] = failures + 1, timer
        except Error as error:
            # The relay says that it is starting when its patience is over; the next request asks again.
            log.warning("cannot wake the agent", agent=agent_id, reason=str(error))
