"""Keeps the store from growing for ever: old events, agents long gone, claims and logins that are over. A bit at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from elizacloud.settings import Settings
from elizacloud.store import Store

MOST_BATCHES = 20
"""So many of each kind at a time: what is left then is for the next time."""


async def prune(store: Store, settings: Settings) -> None:
    """Raises what the store raises."""
    await store.idempotency.sweep()
    await store.sessions.sweep()
    await _in_batches(lambda: store.pruning.forget_gone(older_than_seconds=settings.keep_gone_seconds))
    await _in_batches(lambda: store.pruning.forget_events(older_than_seconds=settings.keep_events_seconds))


async def _in_batches(forget: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(MOST_BATCHES):
        if not await forget():
            return
        await asyncio.sleep(0)  # others write, too
