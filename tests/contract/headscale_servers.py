"""The control servers that tests/contract/test_headscale.py runs on, and the tailscaleds that join them.

    fake         tests/fakes/headscale.py, always
    devcontrol   ELIZACLOUD_DEVCONTROL_BIN, or on PATH
    headscale    each binary in ELIZACLOUD_HEADSCALE_BIN (several are parted by ':'), or the one on PATH

The real ones are joined by tailscaled: ELIZACLOUD_TAILSCALED_BIN, or the one on PATH.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

import pytest
from pydantic import SecretStr

from elizacloud.errors import TailnetUnavailable
from elizacloud.headscale.bootstrap import obtain_api_key
from elizacloud.headscale.client import HeadscaleClient
from elizacloud.headscale.protocol import Headscale, MintedKey, Node
from elizacloud.headscale.remembered import Binary, Kind
from elizacloud.headscale.server import STOP_GRACE_SECONDS, SupervisedServer
from elizacloud.processes import Child, LogFile, spawn
from elizacloud.tailnet import JoinPrefs, KeyRefused, LocalApi, Tailscaled, join
from elizacloud.tailnet.tailscaled import udp_port_of
from tests.fakes.headscale import FakeHeadscale, JoinRefused

FAKE = "fake"
JOIN_SECONDS = 20.0
LOOK_SECONDS = 0.05


class Machine(Protocol):
    """One tailscaled that joined."""

    @property
    def node_id(self) -> str: ...

    @property
    def ipv4(self) -> str: ...

    async def stop(self) -> None: ...

    async def start(self) -> None:
        """With the state it has and no key; raises JoinRefused when it needs one."""


class Rig(Protocol):
    """A control server with a client, and what a test can do behind the client's back."""

    @property
    def name(self) -> str:
        """As the last lines of a test run call it."""

    @property
    def headscale(self) -> Headscale: ...

    async def join(self, key: MintedKey, hostname: str = "machine") -> Machine:
        """Raises JoinRefused when the server does not take the key."""

    async def restart(self) -> None: ...

    async def stop_machines(self) -> None: ...

    async def expire_node(self, node_id: str, at: datetime | None = None) -> None:
        """As `headscale nodes expire`: now, or then."""


async def until(look: Callable[[], Awaitable[bool]], *, within_seconds: float = 10) -> None:
    """Look again and again: Headscale tells nobody of what happens to its nodes."""
    async with asyncio.timeout(within_seconds):
        while not await look():
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await asyncio.Event().wait()


@dataclass
class FakeMachine:
    fake: FakeHeadscale
    node: Node

    @property
    def node_id(self) -> str:
        return self.node.id

    @property
    def ipv4(self) -> str:
        assert self.node.ipv4
        return self.node.ipv4

    async def stop(self) -> None:
        if await self.fake.get_node(self.node.id):
            await self.fake.set_online(self.node.id, False)

    async def start(self) -> None:
        await self.fake.start(self.node.id)


@dataclass
class FakeRig:
    name: str = FAKE
    headscale: FakeHeadscale = field(default_factory=FakeHeadscale)
    machines: list[FakeMachine] = field(default_factory=list)

    async def join(self, key: MintedKey, hostname: str = "machine") -> Machine:
        machine = FakeMachine(self.headscale, await self.headscale.join(key.value, hostname=hostname))
        self.machines.append(machine)
        return machine

    async def restart(self) -> None: ...

    async def stop_machines(self) -> None:
        while self.machines:
            await self.machines.pop().stop()

    async def expire_node(self, node_id: str, at: datetime | None = None) -> None:
        await self.headscale.expire_node(node_id, at)


class RealMachine:
    """A tailscaled with a state directory of its own. It is to be stopped also when `start` failed."""

    def __init__(self, tailscaled: Tailscaled, hostname: str) -> None:
        self.tailscaled = tailscaled
        self.api = LocalApi(tailscaled.socket)
        self.node_id = ""
        self.ipv4 = ""
        self._prefs = JoinPrefs(tailscaled.join_url, hostname)
        self._log = LogFile(tailscaled.state_dir / "log")
        self._child: Child | None = None

    async def start(self, key: SecretStr | None = None) -> None:
        self.tailscaled.prepare()
        self._child = spawn(
            self.tailscaled.argv(), name="tailscaled", env=self.tailscaled.environment(), log=self._log.write
        )
        try:
            joined = await join(self.api, self._prefs, key, within_seconds=JOIN_SECONDS)
        except KeyRefused as error:
            raise JoinRefused(str(error)) from error
        assert joined.ipv4
        self.node_id, self.ipv4 = joined.node_id, joined.ipv4

    async def stop(self) -> None:
        await self.api.close()
        self.api = LocalApi(self.tailscaled.socket)
        if self._child is not None:
            await self._child.stop()
            self._child = None

    async def knows_way_to(self, ip: str) -> bool:
        """A disco ping: a dial before it is answered costs WireGuard's retry of 5 s when the other side is new."""
        try:
            async with asyncio.timeout(0.2):
                await self.api.ping(ip)
        except (TimeoutError, TailnetUnavailable):
            return False
        return True

    def close(self) -> None:
        self._log.close()


class RealRig:
    """A supervised server and its machines, in one short directory."""

    def __init__(self, directory: Path, binary: Binary, tailscaled: Path, listen_host: str) -> None:
        self.server = SupervisedServer(directory / "server", binary, run_dir=directory / "run", listen_host=listen_host)
        self.name = server_name(binary)
        self._directory = directory
        self._tailscaled = tailscaled
        self._machines: list[RealMachine] = []
        self._joins = 0
        self._log = LogFile(directory / "server.log")
        self._child: Child | None = None
        self._client: HeadscaleClient | None = None

    @property
    def headscale(self) -> HeadscaleClient:
        assert self._client
        return self._client

    async def start(self) -> None:
        self.server.prepare()
        self._child = await self.server.spawn(self._log.write)
        await self.server.wait_healthy(self._child, last_words=self._log.recent)
        self._client = HeadscaleClient(self.server.url, await obtain_api_key(self.server))

    async def stop(self) -> None:
        if self._client is not None:
            await self._client.close()
        if self._child is not None:
            await self._child.stop(STOP_GRACE_SECONDS)

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def close(self) -> None:
        await self.stop_machines()
        await self.stop()
        self._log.close()

    async def join(self, key: MintedKey, hostname: str = "machine") -> RealMachine:
        self._joins += 1
        home = self._directory / f"m{self._joins}"
        home.mkdir(mode=0o700)
        tailscaled = Tailscaled(self._tailscaled, home, home / "s", self.server.join_url, udp_port_of(home))
        machine = RealMachine(tailscaled, hostname)
        self._machines.append(machine)
        await machine.start(key.value)
        return machine

    async def stop_machines(self) -> None:
        while self._machines:
            machine = self._machines.pop()
            await machine.stop()
            machine.close()

    async def expire_node(self, node_id: str, at: datetime | None = None) -> None:
        query = {} if at is None else {"expiry": at.isoformat().replace("+00:00", "Z")}
        path = f"/api/v1/node/{node_id}/expire"
        answer = await self.headscale._http.call("POST", path, doing="expire a node", query=query)
        assert answer.ok, answer


def server_name(binary: Binary) -> str:
    """Several Headscales are told apart by their files' names."""
    name = binary.path.name
    return name if name.startswith(binary.kind) else f"{binary.kind}-{name}"


def find_tailscaled() -> Path | None:
    return _named("ELIZACLOUD_TAILSCALED_BIN") or _on_path("tailscaled")


def configured_headscales() -> list[Path]:
    """What ELIZACLOUD_HEADSCALE_BIN names; each of these has to run."""
    return [Path(path) for path in os.environ.get("ELIZACLOUD_HEADSCALE_BIN", "").split(":") if path]


def devcontrol() -> Binary | None:
    path = _named("ELIZACLOUD_DEVCONTROL_BIN") or _on_path("devcontrol")
    return Binary(Kind.DEVCONTROL, path, "development") if path else None


def parameters() -> list[object]:
    """One pytest parameter a server; one that is not there is skipped with a reason that names it."""
    found: list[object] = [pytest.param(None, id=FAKE)]
    if binary := devcontrol():
        found.append(pytest.param(binary, id=server_name(binary)))
    else:
        found.append(_absent("devcontrol", "no devcontrol: set ELIZACLOUD_DEVCONTROL_BIN"))
    headscales = configured_headscales() or [path for path in [_on_path("headscale")] if path]
    for path in headscales:
        binary = Binary(Kind.HEADSCALE, path, _version(path))
        found.append(pytest.param(binary, id=server_name(binary)))
    if not headscales:
        found.append(_absent("headscale", "no headscale: set ELIZACLOUD_HEADSCALE_BIN or put it on PATH"))
    return found


@asynccontextmanager
async def rig_of(binary: Binary | None, *, listen_host: str = "127.0.0.1") -> AsyncIterator[Rig]:
    if binary is None:
        yield FakeRig()
        return
    tailscaled = find_tailscaled()
    if tailscaled is None:
        pytest.skip("no tailscaled: set ELIZACLOUD_TAILSCALED_BIN or put it on PATH")
    async with AsyncExitStack() as stack:
        # A unix socket's path has at most 107 bytes, which pytest's own directories may pass.
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp")))
        rig = RealRig(directory, binary, tailscaled, listen_host)
        stack.push_async_callback(rig.close)
        await rig.start()
        yield rig


def _named(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value) if value else None


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    return Path(found) if found else None


def _version(path: Path) -> str:
    """What the binary says; one that cannot be run fails where it is used."""
    try:
        done = subprocess.run(
            [path, "version"], capture_output=True, text=True, timeout=20, env={"PATH": os.defpath}, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return next((word for word in done.stdout.split() if word[:1] == "v" and word[1:2].isdigit()), "dev")


def _absent(name: str, reason: str) -> object:
    return pytest.param(None, id=name, marks=pytest.mark.skip(reason=reason))
