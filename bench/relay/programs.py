"""The programs of one run: each on its core, each ended with the block that started it, however that ends."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.relay.contenders import Command, Place
from bench.relay.tools import Tool
from elizacloud.processes import Child, LogFile, spawn

LISTENING_SECONDS = 30
_LOOK_SECONDS = 0.02


Outside = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class Cores:
    """Where things run: one core for the relay that is measured and its tailscaled, others for upstream and for load."""

    relay: tuple[int, ...]
    upstream: tuple[int, ...]
    load: tuple[int, ...]

    def __str__(self) -> str:
        if self.relay == self.load:
            return "nothing is pinned"
        shared = "upstream and load share" if self.upstream == self.load else "upstream has another, load has"
        return f"a relay and its tailscaled have one core, {shared} another"


def choose_cores(available: Iterable[int], *, pinned: bool = True) -> Cores:
    """The first core for the relay, the second for the upstream, the last for the load; all for all when not pinned."""
    every = tuple(sorted(available))
    if not pinned or len(every) == 1:
        return Cores(every, every, every)
    return Cores(every[:1], every[1:2], every[-1:])


class Programs:
    """Starts programs in a directory that is removed at the end. This process itself is moved to the load's cores.

    Around the start of what does not belong to the relay's machine goes `outside`: part 3 has another network there.
    """

    def __init__(self, cores: Cores, outside: Outside = nullcontext) -> None:
        self.cores = cores
        self.outside = outside
        os.sched_setaffinity(0, cores.load)
        self.directory = Path(tempfile.mkdtemp(prefix="ec-bench-", dir="/tmp"))
        self._stack = AsyncExitStack()
        self._stack.callback(shutil.rmtree, self.directory, ignore_errors=True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    def private_dir(self, name: str) -> Path:
        directory = self.directory / name
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory

    async def start_contender(self, tool: Tool, name: str, command: Command, place: Place) -> Started:
        """Start one of the others on the relay's core; return when it listens. Raises RuntimeError when it does not."""
        for file, content in command.files.items():
            (place.directory / file).write_text(content)
        environment = {**tool.environment, **command.environment}
        started = self.start([tool.path, *command.arguments], name, cores=self.cores.relay, env=environment)
        await started.until_listening(place.port)
        return started

    def start(self, argv: Sequence[str | Path], name: str, *, cores: Sequence[int], env: Mapping[str, str]) -> Started:
        """Start it on these cores. What it prints is kept for the message that says why it failed."""
        log = LogFile(self.directory / f"{name.replace(' ', '-')}.log")
        self._stack.callback(log.close)
        pinned = ["taskset", "-c", ",".join(map(str, cores)), *argv]
        child = spawn(pinned, name=name, env={"PATH": os.defpath, **env}, log=log.write, cwd=self.directory)
        self._stack.push_async_callback(child.stop)
        return Started(child, log)


@dataclass(frozen=True, slots=True)
class Started:
    child: Child
    log: LogFile

    async def until_listening(self, where: int | Path) -> None:
        """Return when it accepts connections at this port of loopback or unix socket. Raises RuntimeError when it does not."""
        family, address = (
            (socket.AF_UNIX, str(where)) if isinstance(where, Path) else (socket.AF_INET, ("127.0.0.1", where))
        )
        deadline = time.monotonic() + LISTENING_SECONDS
        while self.child.exit is None and time.monotonic() < deadline:
            with socket.socket(family) as attempt:
                if attempt.connect_ex(address) == 0:
                    return
            await asyncio.sleep(_LOOK_SECONDS)
        raise RuntimeError(f"{self.child.name} does not listen: {self.log.recent()[-600:] or self.child.exit}")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])
