"""A Docker Engine for tests: the machine's own when one answers, else a dockerd that is started for this session.

Public images may be out of reach, so what is run is built from what the machine has: the sidecar from tailscaled and a static
busybox, the agents from busybox alone. Where no engine can run, tests that need one are skipped with the reason.
"""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import os
import shutil
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from aiodocker import Docker

from elizacloud.errors import Misconfigured
from elizacloud.runtime.docker.building import build_sidecar

MACHINES_OWN = Path(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
START_SECONDS = 30.0
LOOK_SECONDS = 0.05
STOP_SECONDS = 20.0

SIDECAR_IMAGE = "elizacloud-test/sidecar"
AGENT_IMAGE = "elizacloud-test/agent"
ROOT_AGENT_IMAGE = "elizacloud-test/root-agent"
"""The same with root as its user."""
AGENT_COMMANDS = ("cat", "echo", "env", "httpd", "id", "kill", "ls", "nc", "ps", "sh", "sleep", "timeout", "touch")


@dataclass(frozen=True, slots=True)
class DockerEngine:
    socket: Path

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def get(self, path: str) -> Any:
        """An answer of the Engine API, None for 404; for a look behind the runtime's back."""
        connection = _UnixConnection(self.socket)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
            return None if response.status == 404 else json.loads(body)
        finally:
            connection.close()

    def names(self, kind: str) -> list[str]:
        """Everything of ours that is there, of a kind: containers, volumes or networks."""
        if kind == "containers":
            return [name for found in self.get("/containers/json?all=1") for name in found["Names"] if _ours(name)]
        found = self.get(f"/{kind}")
        listed = (found["Volumes"] or []) if kind == "volumes" else found
        return [item["Name"] for item in listed if _ours(item["Name"])]


def _ours(name: str) -> bool:
    return name.removeprefix("/").startswith("elizacloud-")


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(str(self._path))


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """One for the session, with both images."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("no static busybox to build images from: install busybox-static")
    with contextlib.ExitStack() as stack:
        own = DockerEngine(MACHINES_OWN)
        engine = own if _answers(own) else stack.enter_context(_dockerd())
        asyncio.run(_build_images(engine, Path(busybox)))
        yield engine


@contextlib.contextmanager
def _dockerd() -> Iterator[DockerEngine]:
    program = shutil.which("dockerd")
    if program is None:
        pytest.skip("no Docker Engine answers, and there is no dockerd to start: install docker.io")
    if os.geteuid() != 0:
        pytest.skip("no Docker Engine answers, and only root can start one")
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        (directory / "daemon.json").write_text("{}")
        options = {
            "config-file": directory / "daemon.json",
            "data-root": directory / "data",
            "exec-root": directory / "exec",
            "pidfile": directory / "pid",
            "host": f"unix://{directory}/docker.sock",
            "log-level": "warn",
        }
        with (directory / "log").open("w") as log:
            daemon = subprocess.Popen(
                [program, *(f"--{name}={value}" for name, value in options.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            engine = DockerEngine(directory / "docker.sock")
            if not _comes_up(engine, daemon):
                last = (directory / "log").read_text().splitlines()[-1:] or ["it said nothing"]
                pytest.skip(f"dockerd does not run on this machine: {last[0]}")
            yield engine
        finally:
            daemon.terminate()
            try:
                daemon.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()


def _comes_up(engine: DockerEngine, daemon: subprocess.Popen[bytes]) -> bool:
    """False when it ended, or does not answer in time."""
    deadline = time.monotonic() + START_SECONDS
    while not _answers(engine):
        with contextlib.suppress(subprocess.TimeoutExpired):
            daemon.wait(LOOK_SECONDS)
            return False
        if time.monotonic() > deadline:
            return False
    return True


def _answers(engine: DockerEngine) -> bool:
    try:
        return bool(engine.get("/version"))
    except (OSError, http.client.HTTPException, ValueError):
        return False


async def _build_images(engine: DockerEngine, busybox: Path) -> None:
    tailscaled = Path(os.environ["ELIZACLOUD_TAILSCALED_BIN"]).resolve()
    try:
        await build_sidecar(engine.url, SIDECAR_IMAGE, busybox=busybox, tailscaled=tailscaled)
    except Misconfigured as error:
        pytest.skip(str(error))
    async with Docker(engine.url) as docker:
        for name, user in ((AGENT_IMAGE, "1000:1000"), (ROOT_AGENT_IMAGE, "0:0")):
            context = io.BytesIO(_agent_context(busybox, user=user))
            await docker.images.build(fileobj=context, encoding="identity", tag=name)


def _agent_context(busybox: Path, *, user: str) -> bytes:
    """An image that is not made for us: it has a user, a working directory and a command, and nothing of a tailnet."""
    dockerfile = (
        f"FROM scratch\nCOPY rootfs/ /\nENV FROM_IMAGE=yes\nUSER {user}\nWORKDIR /www\n"
        'CMD ["httpd", "-f", "-p", "127.0.0.1:2138"]\n'
    )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory in ("rootfs", "rootfs/bin", "rootfs/www", "rootfs/www/api"):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(info)
        for name, content, mode in (
            ("Dockerfile", dockerfile.encode(), 0o644),
            ("rootfs/bin/busybox", busybox.read_bytes(), 0o755),
            ("rootfs/www/api/health", b'{"ready": true}\n', 0o644),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
        for command in AGENT_COMMANDS:
            link = tarfile.TarInfo(f"rootfs/bin/{command}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return buffer.getvalue()
