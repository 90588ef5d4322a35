"""Connections to one upstream that wait to be used again. One event loop, no locks.

`epoch` grows whenever the pool may no longer stand for what it stood for: what was dialled or lent out before that is
never pooled again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from elizacloud.relay.upstream import UpstreamConnection

MAX_IDLE = 64
DEFAULT_IDLE_SECONDS = 4.0
"""Node closes idle connections after 5 s, without a word to a client that is just sending."""
LONGEST_IDLE_SECONDS = 60.0


class Pool:
    def __init__(self, dial: Callable[[], Awaitable[UpstreamConnection]]) -> None:
        self._dial = dial
        self._idle: list[UpstreamConnection] = []
        self._all: set[UpstreamConnection] = set()
        self._now = asyncio.get_running_loop().time
        self.epoch = 0

    def __repr__(self) -> str:
        return f"<Pool {len(self._idle)} idle of {len(self._all)}>"

    @property
    def empty(self) -> bool:
        return not self._all

    def connections(self) -> tuple[int, int]:
        """How many are idle, and how many are busy."""
        idle = len(self._idle)
        return idle, len(self._all) - idle

    def lease(self) -> UpstreamConnection | None:
        """The connection that was used last, if there is one that can be used."""
        now = self._now()
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and now - connection.idle_since < _idle_seconds(connection):
                return connection
            connection.close()
        return None

    async def connect(self) -> UpstreamConnection:
        """A new connection, of the epoch in which the dial began: compare before it is used. It may be closed again."""
        epoch = self.epoch
        connection = await self._dial()
        connection.epoch = epoch
        if connection.closed:
            return connection  # it may be lost already, between the dial and here: nobody would tell us
        connection.on_lost = self._lost
        self._all.add(connection)
        return connection

    def give_back(self, connection: UpstreamConnection) -> None:
        """Keep it for another request, if it can take one."""
        if (
            connection.closed
            or not connection.keep_alive
            or connection.epoch != self.epoch
            or len(self._idle) >= MAX_IDLE
        ):
            connection.close()
        else:
            connection.idle_since = self._now()
            self._idle.append(connection)

    def sweep(self) -> None:
        """Close what has been idle for too long."""
        now = self._now()
        stale = [conn for conn in self._idle if now - conn.idle_since >= _idle_seconds(conn)]
        if stale:
            self._idle = [conn for conn in self._idle if conn not in stale]
            for connection in stale:
                connection.close()

    def retire(self) -> None:
        """No new requests on what there is: idle connections close, busy ones finish."""
        self.epoch += 1
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def kill(self, reason: str) -> None:
        """End every connection now; those who wait for an answer hear the reason."""
        self.epoch += 1
        self._idle = []
        for connection in tuple(self._all):
            connection.kill(reason)

    def _lost(self, connection: UpstreamConnection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)


def _idle_seconds(connection: UpstreamConnection) -> float:
    if connection.idle_within is None:
        return DEFAULT_IDLE_SECONDS
    return min(LONGEST_IDLE_SECONDS, connection.idle_within - 1)
