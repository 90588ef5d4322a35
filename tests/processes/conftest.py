"""Real children, and ways to await what they do without a sleep."""

from __future__ import annotations

import asyncio
import os
import select
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from elizacloud.processes.child import Child, spawn

ENV = {"PATH": os.environ["PATH"]}


def python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", code, *arguments]


class Printed:
    """A LineSink whose lines can be awaited."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self._news = asyncio.Event()

    def __call__(self, line: bytes) -> None:
        self.lines.append(line)
        self._news.set()

    async def until(self, condition: Callable[[list[bytes]], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition(self.lines):
                self._news.clear()
                await self._news.wait()

    async def line(self, prefix: bytes) -> bytes:
        """What follows `prefix` on the first line that begins with it."""
        await self.until(lambda lines: any(line.startswith(prefix) for line in lines))
        return next(line.removeprefix(prefix) for line in self.lines if line.startswith(prefix))


def await_gone(pid: int) -> None:
    """Returns when the process has exited; fails after 20 s."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([pidfd], [], [], 20)[0], f"process {pid} still runs"
    finally:
        os.close(pidfd)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


@pytest.fixture(scope="session", autouse=True)
def _no_implicit_event_loop() -> None:
    """Else looptime makes one that nobody closes, when the first test that it sees is not async."""
    asyncio.set_event_loop(None)


@pytest.fixture
def printed() -> Printed:
    return Printed()


@pytest.fixture
def start(printed: Printed) -> Callable[..., Child]:
    """Spawn `python -c code` with the test's sink."""

    def spawn_python(code: str, *arguments: str, **options: object) -> Child:
        return spawn(python(code, *arguments), **{"name": "test", "env": ENV, "log": printed, **options})  # type: ignore[arg-type]

    return spawn_python
