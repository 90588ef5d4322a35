"""A cloud of parts whose control plane has seams and whose data lies on a small disk of its own; and what can be done to it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

from tests.chaos.audit import World, processes_below
from tests.chaos.gate import Gate
from tests.chaos.proxy import Proxy, Trouble
from tests.e2e.parts import Parts

DISK_BYTES = 96 * 1024 * 1024
REPOSITORY = Path(__file__).parents[2]


class SeamedParts(Parts):
    """Its control plane asks Headscale through `proxy`."""

    def __init__(self, headscale: str, gate: Path, proxy: Proxy, directory: Path) -> None:
        super().__init__(headscale, directory=directory)
        self._gate = gate
        self._proxy = proxy

    @property
    def chosen(self) -> dict[str, str]:
        return {**super().chosen, "headscale_api_url": self._proxy.url}

    def _command(self, name: str) -> tuple[list[str | Path], Mapping[str, str]]:
        argv, environment = super()._command(name)
        if name != "control plane":
            return argv, environment
        argv[argv.index("elizacloud")] = "tests.chaos.control_plane"
        return argv, {**environment, "CHAOS_SOCKET": str(self._gate), "PYTHONPATH": str(REPOSITORY)}


class ChaosCloud:
    """`async with` starts it; `disk_is_own` says whether its data dir is a disk that can be filled."""

    def __init__(self, headscale: str = "devcontrol") -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="ec-", dir="/tmp"))
        self._disk = self.directory / "data"
        self._disk.mkdir(mode=0o700)
        size = f"size={DISK_BYTES},mode=700"
        mount = ["mount", "-t", "tmpfs", "-o", size, "chaos", str(self._disk)]
        self.disk_is_own = subprocess.run(mount, capture_output=True, check=False).returncode == 0
        self.gate = Gate(self.directory / "gate.sock")
        self.proxy = Proxy(lambda: self.parts.headscale_url)
        self.parts = SeamedParts(headscale, self.gate.path, self.proxy, self.directory)

    async def __aenter__(self) -> Self:
        await self.gate.__aenter__()
        await self.proxy.__aenter__()
        await self.parts.__aenter__()
        headers = {"Authorization": f"Bearer {self.parts.operator_token}", "Prefer": "respond-async"}
        self._session = aiohttp.ClientSession(self.parts.url, headers=headers, timeout=aiohttp.ClientTimeout(total=20))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()
        self.gate.open()
        await self.parts.__aexit__()
        await self.proxy.__aexit__(kind, error, trace)
        await self.gate.__aexit__(kind, error, trace)
        if self.disk_is_own:
            await asyncio.to_thread(subprocess.run, ["umount", str(self._disk)], check=True)
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def world(self) -> World:
        return World(self._disk, self.parts.headscale_url, self.parts.url, self.parts.operator_token)

    # What an owner does.

    async def create(self, name: str) -> str:
        return str((await self.ask("POST", "/api/v1/agents", {"agentName": name}))["agentId"])

    async def wish(self, agent: str, what: str) -> None:
        """start, stop, restart, pause or delete."""
        if what == "pause":
            self.gate.pause(agent)
        elif what == "delete":
            await self.ask("DELETE", f"/api/v1/agents/{agent}")
        else:
            await self.ask("POST", f"/api/v1/agents/{agent}/{what}")

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        async with self._session.request(method, path, json=body) as answer:
            assert answer.status in (200, 202, 204), (answer.status, await answer.text())
            return await answer.json() if answer.status != 204 else None

    # What happens to it: entered, the trouble is there; left, it is repaired.

    @asynccontextmanager
    async def dead(self, part: str) -> AsyncIterator[None]:
        """kill -9 of a part, which somebody starts again."""
        await self.parts.kill(part)
        yield
        await self.parts.start(part)

    @asynccontextmanager
    async def stalled_headscale(self) -> AsyncIterator[None]:
        """It is stopped in the middle of what it does and later goes on with it, as if nothing had been."""
        child = self.parts.child("control server")
        child.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            child.signal(signal.SIGCONT)

    @asynccontextmanager
    async def faulty_headscale(self, trouble: Trouble) -> AsyncIterator[None]:
        with self.proxy.trouble(trouble):
            yield

    @asynccontextmanager
    async def lost_store(self) -> AsyncIterator[None]:
        """Another process (this one) holds the database; nobody else can write it."""
        with closing(sqlite3.connect(self._disk / "store.db", isolation_level=None, timeout=5)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            yield
            connection.execute("ROLLBACK")

    @asynccontextmanager
    async def full_disk(self) -> AsyncIterator[None]:
        filler = self._disk / "filler"
        with filler.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(b"\0" * 65536)
            except OSError:
                pass
        try:
            yield
        finally:
            filler.unlink()

    def kill_instance(self, agent: str) -> int:
        """kill -9 of all its processes; says how many there were."""
        victims = [process.pid for process in processes_below(self._disk) if process.agent == agent]
        for pid in victims:
            with suppress(ProcessLookupError):  # it went with the one before
                os.kill(pid, signal.SIGKILL)
        return len(victims)
