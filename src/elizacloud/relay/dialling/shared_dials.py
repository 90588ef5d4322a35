"""Dials to one agent, bounded: who has to wait takes a connection that becomes free, or shares the others' failure.

Else every request for an agent that is frozen would keep a dial of its own in tailscaled until it times out.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque

from elizacloud.errors import Error
from elizacloud.relay.dialling.pool import Pool
from elizacloud.relay.upstream import UpstreamConnection


class SharedDials:
    def __init__(self, pool: Pool, most: int) -> None:
        self._pool = pool
        self._most = most
        self._running = 0
        self.waiting: deque[asyncio.Future[None]] = deque()
        """Who has to wait for a turn, the longest first."""

    async def connection(self, *, wait_seconds: float) -> UpstreamConnection:
        """A connection of the pool. Raises what its dial raises, also another's; TimeoutError when no turn came in time."""
        deadline = asyncio.get_running_loop().time() + wait_seconds
        while self._running >= self._most:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiting.append(turn)
            try:
                async with asyncio.timeout_at(deadline):
                    await turn
            except BaseException:
                if turn.done() and not turn.cancelled() and turn.exception() is None:
                    self.next_turn()  # it was ours, and we do not take it
                raise
            if (free := self._pool.lease()) is not None:
                return free
        self._running += 1
        try:
            return await self._pool.connect()
        except Error as error:
            while self.waiting:
                self._end_wait(self.waiting.popleft(), error)
            raise
        finally:
            self._running -= 1
            self.next_turn()

    def next_turn(self) -> None:
        """A connection became free, or a dial may begin: let the one look that waits longest."""
        while self.waiting:
            turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return

    def _end_wait(self, turn: asyncio.Future[None], error: Error) -> None:
        if not turn.done():
            turn.set_exception(copy.copy(error))  # one exception must not be raised in many tasks
