"""The parts of a cloud, each started by hand and none supervised: what a test stops stays stopped until it starts it."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import aiohttp

from elizacloud.app.control_server import Remote, obtain
from elizacloud.app.data_dir import open_data_dir
from elizacloud.app.relay_node import RelayNode
from elizacloud.headscale.bootstrap import bootstrap
from elizacloud.headscale.client import HeadscaleClient
from elizacloud.headscale.server import SupervisedServer
from elizacloud.processes import Child, LogFile, spawn
from elizacloud.settings import Settings, child_environment
from tests.e2e.looking import WITHIN_SECONDS, a_moment

ORDER = ("control server", "process host", "tailscaled", "control plane", "relay")


class Parts:
    """`async with` starts them all, with two relay workers; `kill` and `start` one of ORDER."""

    def __init__(
        self, headscale: str, settings: Mapping[str, str] | None = None, *, directory: Path | None = None
    ) -> None:
        self.directory = directory or Path(tempfile.mkdtemp(prefix="ec-", dir="/tmp"))
        self.url = ""
        self.more_settings = dict(settings or {})
        self._settings = Settings(
            data_dir=self.directory / "data",
            headscale=headscale,
            devcontrol_bin=Path(os.environ["ELIZACLOUD_DEVCONTROL_BIN"]),
        )
        self.data = open_data_dir(self._settings)
        self._tailscaled = Path(os.environ["ELIZACLOUD_TAILSCALED_BIN"])
        self._children: dict[str, Child] = {}
        self._logs: dict[str, LogFile] = {}
        self._server: SupervisedServer
        self._client: HeadscaleClient

    async def __aenter__(self) -> Parts:
        binary = await obtain(self._settings, self.data.control_server)
        assert not isinstance(binary, Remote)
        self._server = SupervisedServer(
            self.data.control_server,
            binary,
            run_dir=self.data.sockets / "control",
            debug_listen=f"unix:{self.fault_switches}",
        )
        self._server.prepare()
        try:
            await self.start("control server")
            self._client = await bootstrap(self._server)
            for name in ORDER[1:]:
                await self.start(name)
                if name == "tailscaled":
                    await self._node.join(self._client)
            await self.until_ready()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        for name in reversed(ORDER):
            if name in self._children:
                await self._children.pop(name).stop(10)
        await self._client.close()
        for log in self._logs.values():
            log.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def fault_switches(self) -> Path:
        """The socket of devcontrol's."""
        return self.directory / "faults.sock"

    @property
    def headscale_url(self) -> str:
        return self._server.url

    @property
    def operator_token(self) -> str:
        return self.data.operator_token(self._settings).get_secret_value()

    @property
    def worker_addresses(self) -> list[Path]:
        return sorted((self.data.sockets / "relay").glob("worker-*.sock"))

    def child(self, name: str) -> Child:
        return self._children[name]

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    async def start(self, name: str) -> None:
        """Return when its process runs; of the control server, when it answers, of the relay, when it listens."""
        argv, environment = self._command(name)
        listened = self._times_listening
        log = self._logs.get(name) or self._logs.setdefault(name, LogFile(self.directory / f"{name}.log"))
        self._children[name] = child = spawn(argv, name=name, env=environment, log=log.write)
        async with asyncio.timeout(WITHIN_SECONDS):
            if name == "control server":
                await self._server.wait_healthy(child, last_words=log.recent)
            elif name == "relay":
                await self._until_listening(listened)

    async def kill(self, name: str) -> None:
        """kill -9, and proof that it is dead."""
        child = self._children.pop(name)
        child.kill()
        await child.stop()
        try:
            os.kill(child.pid, 0)
        except ProcessLookupError:
            return
        raise AssertionError(f"{name} lives")

    async def replace_control_server(self) -> None:
        """From now on there is another one of devcontrol's at the same address, which has its own keys and no node of ours."""
        await self.kill("control server")
        (self.data.control_server / "state.json").unlink()
        await self.start("control server")
        await self._client.close()
        self._client = await bootstrap(self._server)

    async def join_relay(self) -> None:
        """As after `replace_control_server`: a tailscaled that starts learns that its node is not there, and joins."""
        await self.kill("tailscaled")
        await self.start("tailscaled")
        await self._node.join(self._client)

    async def until_ready(self) -> None:
        """Return when the front door says that everything behind it is ready."""
        async with aiohttp.ClientSession() as session, asyncio.timeout(WITHIN_SECONDS):
            while True:
                async with session.get(f"{self.url}/readyz") as answer:
                    if answer.status == 200:
                        return
                await a_moment()

    @property
    def _times_listening(self) -> int:
        return self.log("relay").count('"relay started"') if "relay" in self._logs else 0

    async def _until_listening(self, before: int) -> None:
        while self._times_listening == before:
            await a_moment()
        line = next(line for line in reversed(self.log("relay").splitlines()) if '"relay started"' in line)
        self.url = line.partition('"url": "')[2].partition('"')[0]

    @property
    def _node(self) -> RelayNode:
        return RelayNode(
            self._tailscaled,
            self.data.relay / "tailscaled",
            self.data.sockets / "relay" / "tailscaled.sock",
            join_url=self._server.join_url,
            installation_id=self.data.installation_id,
            memory_limit="128MiB",
        )

    def _command(self, name: str) -> tuple[list[str | Path], Mapping[str, str]]:
        match name:
            case "control server":
                command = self._server.serve_command()
                return list(command.argv), command.env
            case "tailscaled":
                spec = self._node.child()
                return list(spec.argv), spec.env
            case "process host":
                argv: list[str | Path] = [sys.executable, "-m", "elizacloud.runtime.process.host"]
                argv += ["--socket", self.data.sockets / "agents" / "host.sock", "--data-dir", self.data.path]
                return [*argv, "--tailscaled", self._tailscaled], child_environment()
        role = {"control plane": "serve", "relay": "relay"}[name]
        return [sys.executable, "-m", "elizacloud", role], self._environment()

    def _environment(self) -> Mapping[str, str]:
        return child_environment(self.chosen)

    @property
    def chosen(self) -> dict[str, str]:
        """The settings that every process of ours gets."""
        return {
            "data_dir": str(self.data.path),
            "headscale_api_url": self._server.url,
            "headscale_join_url": self._server.join_url,
            "headscale_api_key": f"file:{self.data.control_server / 'api.key'}",
            "workers": "2",
            "port": "0",
            "log_json": "true",
            **self.more_settings,
        }
