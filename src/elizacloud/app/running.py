"""What every process of ours does around its work: listen to signals, and end with the one error that matters."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from elizacloud.errors import Error


@dataclass(frozen=True)
class Signals:
    """What a process is told from outside."""

    stop: asyncio.Event = field(default_factory=asyncio.Event)
    """SIGINT, SIGTERM, or the terminal was closed."""
    renew: asyncio.Event = field(default_factory=asyncio.Event)
    """SIGHUP, as daemons take it, for whoever does not sit at a terminal; who acts on it clears it."""


def run_until_signal(
    body: Callable[[Signals], Coroutine[Any, Any, None]],
    *,
    runner: Callable[[Coroutine[Any, Any, None]], None] = asyncio.run,
) -> None:
    """Run `body`, which returns after `stop`. Of a group of errors the first one of ours is raised."""

    async def main() -> None:
        signals = Signals()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, signals.stop.set)
        hangup = signals.stop if sys.stderr.isatty() else signals.renew
        loop.add_signal_handler(signal.SIGHUP, hangup.set)
        await body(signals)

    try:
        runner(main())
    except BaseExceptionGroup as group:
        raise first_error(group) from group


def first_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first Error of ours in the group, else the first exception of any kind."""
    found = group.subgroup(Error) or group
    error: BaseException = found
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
