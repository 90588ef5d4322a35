"""PostgreSQL's LISTEN on a connection of its own: rings the bell when another control plane wrote an event, and passes on
what they tell each other."""

from __future__ import annotations

import asyncio

import psycopg
import structlog
from sqlalchemy.engine import URL

from elizacloud.store.bell import Bell
from elizacloud.store.hints import CHANNEL, Hints

_log = structlog.get_logger()
_AGAIN_SECONDS = 5.0


async def listen(url: URL, bell: Bell, hints: Hints) -> None:
    """Listen until cancelled. While the connection is lost nothing rings, and waiters live by their poll."""
    while True:
        try:
            await _listen_once(url, bell, hints)
        except (psycopg.Error, OSError) as error:
            _log.warning("event listener lost its connection", error=type(error).__name__, again_seconds=_AGAIN_SECONDS)
        await asyncio.sleep(_AGAIN_SECONDS)


async def _listen_once(url: URL, bell: Bell, hints: Hints) -> None:
    # As SQLAlchemy reads the URL, so that both connect to the same server.
    _, arguments = url.get_dialect()().create_connect_args(url)
    limits = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    async with await psycopg.AsyncConnection.connect(autocommit=True, **{**arguments, **limits}) as connection:
        for channel in (Bell.CHANNEL, CHANNEL):
            await connection.execute(f"LISTEN {channel}".encode())
        # What was written before LISTEN took effect has rung nowhere.
        bell.ring_all()
        async for notification in connection.notifies():
            if notification.channel == CHANNEL:
                hints.heard(notification.payload)
            else:
                bell.ring(notification.payload)
