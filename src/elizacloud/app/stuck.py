"""A child that lives but answers nobody: killed, so that its supervision starts it again.

Headscale gets there: after the deletion of a connected node it waits for an open stream without a deadline. The relay's
tailscaled is looked after, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NoReturn

import structlog

from elizacloud.app.children import Kept
from elizacloud.errors import Error

EVERY_SECONDS = 10.0
PATIENCE = 3

log = structlog.get_logger()


async def restart_when_stuck(
    kept: Kept,
    healthy: Callable[[], Awaitable[None]],
    *,
    every_seconds: float = EVERY_SECONDS,
    patience: int = PATIENCE,
) -> NoReturn:
    """Look for ever, until cancelled; `healthy` is bounded in time and raises an Error when the child is not well."""
    failures = 0
    child = kept.child
    while True:
        await asyncio.sleep(every_seconds)
        if child is not kept.child:
            child, failures = kept.child, 0
        try:
            await healthy()
            failures = 0
        except Error as error:
            failures += 1
            if child is not None and child is kept.child and failures >= patience:
                log.warning("child is stuck and is killed", child=kept.name, looks=failures, reason=str(error))
                child.kill()
                failures = 0
