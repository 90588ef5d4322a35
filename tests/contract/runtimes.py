"""The runtimes that tests/contract/test_runtime.py runs on, and what to run in them."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest
from pydantic import SecretStr

from elizacloud.model import DEFAULT_HOST_ID, AgentSpec, agent_hostname
from elizacloud.processes import Child, LogFile, spawn
from elizacloud.runtime.hosts import Hosts
from elizacloud.runtime.process import ProcessRuntime
from elizacloud.runtime.protocol import InstanceSecrets, InstanceSpec, Labels, Runtime
from tests.fakes.runtime import DiesAtOnce, FailsToStart, FakeRuntime

RUNS = ("/bin/sh", "-c", "echo started; exec sleep 86400")
DIES = ("/bin/sh", "-c", "exit 3")
"""A shell is in every container, too."""
NO_SERVER = "http://127.0.0.1:1"
"""A join URL where nothing listens: what is tested here needs no tailnet."""

HOST_IDS = (DEFAULT_HOST_ID, "big")
"""Where there are several hosts, agents whose id begins with a are on the first, and others on the second."""

READY_SECONDS = 20.0


def labels(
    *, agent_id: str = "bcdfghjkm2345678", generation: int = 1, run: int = 1, installation_id: str = "one"
) -> Labels:
    return Labels(installation_id, agent_id, generation, run)


def spec(of: Labels | None = None, *, command: tuple[str, ...] = RUNS) -> InstanceSpec:
    of = of or labels()
    host_id = HOST_IDS[of.agent_id >= "b"]
    return InstanceSpec(of, agent_hostname(of.agent_id), NO_SERVER, None, AgentSpec(command=command), host_id)


def secrets(*, preauth_key: str | None = "hskey-auth-abc") -> InstanceSecrets:
    return InstanceSecrets(
        SecretStr(preauth_key) if preauth_key else None,
        SecretStr("agent-token"),
        SecretStr("join-token"),
        SecretStr("busy-token"),
    )


class Rig(Protocol):
    """A runtime and what a test can see and do behind its back."""

    @property
    def runtime(self) -> Runtime: ...

    def dying(self, *, exit_code: int) -> Runtime:
        """A runtime whose agents die at once when their command is DIES."""

    def failing_to_start(self) -> Runtime:
        """A runtime where a start of /no/such/command fails."""

    def has_volume(self, of: Labels) -> bool: ...

    async def takes_down(self) -> None:
        """The runtime stops answering."""


class FakeRig:
    def __init__(self) -> None:
        self.runtime = FakeRuntime()

    def dying(self, *, exit_code: int) -> Runtime:
        runtime = DiesAtOnce()
        runtime.exit_code, runtime.reason = exit_code, f"agent: exit status {exit_code}"
        return runtime

    def failing_to_start(self) -> Runtime:
        return FailsToStart()

    def has_volume(self, of: Labels) -> bool:
        return (of.agent_id, of.generation) in self.runtime.volumes

    async def takes_down(self) -> None:
        self.runtime.answers = False


class HostsRig:
    """Two fakes behind one front."""

    def __init__(self) -> None:
        self._use(FakeRuntime(), FakeRuntime())

    def dying(self, *, exit_code: int) -> Runtime:
        runtime = DiesAtOnce()
        runtime.exit_code, runtime.reason = exit_code, f"agent: exit status {exit_code}"
        return self._use(FakeRuntime(), runtime)

    def failing_to_start(self) -> Runtime:
        return self._use(FakeRuntime(), FailsToStart())

    def has_volume(self, of: Labels) -> bool:
        return any((of.agent_id, of.generation) in host.volumes for host in self.hosts)

    async def takes_down(self) -> None:
        self.hosts[1].answers = False

    def _use(self, *hosts: FakeRuntime) -> Runtime:
        self.hosts = hosts
        self.runtime = Hosts(dict(zip(HOST_IDS, hosts, strict=True)))
        return self.runtime


class ProcessRig:
    """A process host with a data dir of its own, as `up` would run it."""

    def __init__(self, directory: Path, tailscaled: Path) -> None:
        self.directory = directory
        self.data_dir = directory / "data"
        self.runtime = ProcessRuntime(directory / "run" / "host.sock")
        self.log = LogFile(directory / "host.log")
        self.tailscaled = tailscaled
        self._host: Child | None = None

    @property
    def pid(self) -> int:
        assert self._host is not None
        return self._host.pid

    async def start(self, *options: str, environment: Mapping[str, str] | None = None) -> None:
        """Start the host; it answers when this returns."""
        await self.launch(*options, environment=environment)
        await self.runtime.until_ready(within_seconds=READY_SECONDS)

    async def launch(self, *options: str, environment: Mapping[str, str] | None = None) -> Child:
        """Start the host, without waiting for it."""
        paths = ("--socket", self.directory / "run" / "host.sock", "--data-dir", self.data_dir)
        self._host = spawn(
            (
                sys.executable,
                "-m",
                "elizacloud.runtime.process.host",
                *paths,
                "--tailscaled",
                self.tailscaled,
                *options,
            ),
            name="process host",
            env={"PATH": os.environ["PATH"], "HOME": str(self.directory), **(environment or {})},
            log=self.log.write,
            when_parent_dies=signal.SIGTERM,
        )
        return self._host

    async def stop(self) -> None:
        if self._host is not None:
            await self._host.stop(grace_seconds=15)
            self._host = None

    async def kill(self) -> None:
        """As `kill -9` of the host alone; what it leaves is not cleaned up by the test."""
        assert self._host is not None
        os.kill(self._host.pid, signal.SIGKILL)
        await self._host.wait()

    async def close(self) -> None:
        await self.runtime.close()
        await self.stop()
        self.log.close()

    def volume(self, of: Labels) -> Path:
        return self.data_dir / "agents" / of.agent_id / str(of.generation)

    def dying(self, *, exit_code: int) -> Runtime:
        return self.runtime

    def failing_to_start(self) -> Runtime:
        return self.runtime

    def has_volume(self, of: Labels) -> bool:
        return self.volume(of).exists()

    async def takes_down(self) -> None:
        await self.stop()


@asynccontextmanager
async def process_rig() -> AsyncIterator[ProcessRig]:
    """A process host, not started, in a short directory; stopped and deleted in the end."""
    tailscaled = os.environ.get("ELIZACLOUD_TAILSCALED_BIN")
    if not tailscaled:
        pytest.skip("no tailscaled: set ELIZACLOUD_TAILSCALED_BIN")
    # A unix socket's path has at most 107 bytes, which pytest's own directories may pass.
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as directory:
        rig = ProcessRig(Path(directory), Path(tailscaled))
        try:
            yield rig
        finally:
            await rig.close()
