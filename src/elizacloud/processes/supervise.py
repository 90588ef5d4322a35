"""One child for ever: started again after each exit, ever later, until cancelled.

Readiness is the caller's: the hook hears of each start and each exit, `supervise` itself only of exits.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NoReturn, Protocol

import structlog

from elizacloud.processes.backoff import Backoff
from elizacloud.processes.child import Exit
from elizacloud.processes.errors import SpawnFailed

log = structlog.get_logger()


class Process(Protocol):
    """What `supervise` needs of a child."""

    @property
    def pid(self) -> int: ...

    async def wait(self) -> Exit: ...

    async def stop(self, grace_seconds: float) -> Exit: ...


@dataclass(frozen=True)
class Started:
    name: str
    process: Process


@dataclass(frozen=True)
class Exited:
    """The child is gone (`pid`, `exit`), or could not be started (`failure`); the next try is in `retry_seconds`."""

    name: str
    pid: int | None
    exit: Exit | None
    failure: SpawnFailed | None
    uptime_seconds: float
    retry_seconds: float


Hook = Callable[[Started | Exited], Awaitable[None]]


async def _nothing(_: Started | Exited) -> None: ...


async def supervise(
    name: str,
    start: Callable[[], Awaitable[Process]],
    *,
    hook: Hook = _nothing,
    backoff: Backoff = Backoff(),  # noqa: B008 - frozen
    grace_seconds: float = 5.0,
    chance: Callable[[], float] = random.random,
) -> NoReturn:
    """Keep what `start` starts running. On cancel, or an error from `hook`, the child is stopped before this raises.

    A clean exit counts like any other: what is supervised is meant to stay. Errors of `start` other than SpawnFailed
    are the caller's bugs and end the supervision.
    """
    clock = asyncio.get_running_loop().time
    failures = 0
    while True:
        began = clock()
        pid, exit_, failure = None, None, None
        try:
            process = await start()
        except SpawnFailed as error:
            failure = error
        else:
            pid = process.pid
            try:
                log.info("child started", child=name, pid=pid)
                await hook(Started(name, process))
                exit_ = await process.wait()
            finally:
                await process.stop(grace_seconds)
        uptime = clock() - began
        failures = backoff.failures_after(failures, uptime)
        retry = backoff.delay_seconds(failures, chance())
        log.warning(
            "child exited" if exit_ else "child did not start",
            child=name,
            pid=pid,
            reason=str(exit_ or failure),
            uptime_seconds=round(uptime, 3),
            retry_seconds=round(retry, 3),
        )
        await hook(Exited(name, pid, exit_, failure, uptime, retry))
        await asyncio.sleep(retry)
