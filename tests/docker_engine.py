"""A Docker Engine for tests and benchmarks: the machine's own when one answers, else a dockerd that is started for this session.

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
from elizacloud.runtime.docker.building import build_sidecar, wrap
from elizacloud.runtime.docker.host import gateway_of

MACHINES_OWN = Path(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock").removeprefix("unix://"))
START_SECONDS = 30.0
LOOK_SECONDS = 0.05
STOP_SECONDS = 20.0

SIDECAR_IMAGE = "elizacloud-test/sidecar"
AGENT_IMAGE = "elizacloud-test/agent"
ROOT_AGENT_IMAGE = "elizacloud-test/root-agent"
"""The same with root as its user."""
EMBEDDED_IMAGE = "elizacloud-test/embedded"
"""The first one, made to join the tailnet by itself."""
AGENT_COMMANDS = ("cat", "echo", "env", "httpd", "id", "kill", "ls", "nc", "ps", "sh", "sleep", "timeout", "touch")


class NoEngine(Exception):
    """Why no Docker Engine can be had on this machine."""


@dataclass(frozen=True, slots=True)
class DockerEngine:
    socket: Path
    daemon: Daemon | None = None
    """The dockerd behind it, when it is ours."""

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def gateway(self) -> str:
        """An address of this machine that containers reach, too."""
        if self.rootless:
            return os.environ["ELIZACLOUD_DOCKER_HOST_ADDRESS"]  # who has such a Docker says it as for the product
        found = gateway_of(self.get("/networks/bridge"))
        assert found is not None
        return found

    @property
    def rootless(self) -> bool:
        """Then its bridges are in a network namespace of its own."""
        return "name=rootless" in self.get("/info")["SecurityOptions"]

    def bridge_of(self, network: str) -> str:
        """The device behind a network."""
        return f"br-{self.get(f'/networks/{network}')['Id'][:12]}"

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


def filters_of(bridge: str) -> list[str]:
    """The packet filters that the product set on this machine for a bridge, as `iptables -S` prints them."""
    if os.geteuid() != 0 or shutil.which("iptables") is None:
        return []
    printed = subprocess.run(["iptables", "-S"], check=True, text=True, capture_output=True).stdout
    return [line for line in printed.splitlines() if bridge in line and "EC-" in line]


def lift_filters(bridge: str) -> None:
    """The product leaves them for as long as an installation lives; a test's bridge goes."""
    found = filters_of(bridge)
    for line in found:
        if line.startswith("-A") and " -j EC-" in line:
            subprocess.run(["iptables", "-D", *line.split()[1:]], check=True)
    for line in found:
        if line.startswith("-N"):
            for action in ("-F", "-X"):
                subprocess.run(["iptables", action, line.split()[1]], check=True)


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
    """One for the session, with all images."""
    with contextlib.ExitStack() as stack:
        try:
            engine = stack.enter_context(an_engine())
        except NoEngine as reason:
            pytest.skip(str(reason))
        yield engine


@contextlib.contextmanager
def an_engine() -> Iterator[DockerEngine]:
    """One with all images: the machine's own, or one that ends with the block. Raises NoEngine."""
    with contextlib.ExitStack() as stack:
        engine = DockerEngine(MACHINES_OWN)
        if not _answers(engine):
            engine = stack.enter_context(own_dockerd())
        asyncio.run(build_images(engine))
        yield engine


class Daemon:
    """A dockerd with a data root, a socket and a directory of its own; it can be killed and started again."""

    def __init__(self, program: str, directory: Path, *options: str) -> None:
        self.directory = directory
        (directory / "daemon.json").write_text("{}")
        own = {
            "config-file": directory / "daemon.json",
            "data-root": directory / "data",
            "exec-root": directory / "exec",
            "pidfile": directory / "pid",
            "host": f"unix://{directory}/docker.sock",
            "log-level": "warn",
        }
        self._argv = [program, *(f"--{name}={value}" for name, value in own.items()), *options]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers. Raises NoEngine."""
        with (self.directory / "log").open("a") as log:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        if not comes_up(DockerEngine(self.directory / "docker.sock"), self._process):
            last = (self.directory / "log").read_text().splitlines()[-1:] or ["it said nothing"]
            raise NoEngine(f"dockerd does not run on this machine: {last[0]}")

    def stop(self) -> None:
        """As a host that is shut down: its containers are told to end."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """Its containers go on without it until the next one starts, which ends them."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        # Its containerd dies with it; where nobody reaps that, the next dockerd would wait for it as if it lived.
        (self.directory / "exec" / "containerd" / "containerd.pid").unlink(missing_ok=True)


@contextlib.contextmanager
def own_dockerd(*options: str) -> Iterator[DockerEngine]:
    """A dockerd of ours, without images. Raises NoEngine."""
    program = shutil.which("dockerd")
    if program is None:
        raise NoEngine("no Docker Engine answers, and there is no dockerd to start: install docker.io")
    if os.geteuid() != 0:
        raise NoEngine("no Docker Engine answers, and only root can start one")
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp", ignore_cleanup_errors=True) as name:
        daemon = Daemon(program, Path(name), *options)
        try:
            daemon.start()
            yield DockerEngine(Path(name) / "docker.sock", daemon)
        finally:
            daemon.stop()


@contextlib.contextmanager
def second_dockerd(*options: str) -> Iterator[DockerEngine]:
    """One more beside the machine's own or ours, without images: another host, on this one's network. Raises NoEngine."""
    if shutil.which("ip") is None:
        raise NoEngine("no second dockerd can have a bridge: install iproute2")
    bridge = f"ec-{os.urandom(4).hex()}"  # with `--bridge=none` it would delete the first one's
    subprocess.run(["ip", "link", "add", bridge, "type", "bridge"], check=True)
    try:
        subprocess.run(["ip", "address", "add", "198.18.213.1/28", "dev", bridge], check=True)
        with own_dockerd(f"--bridge={bridge}", "--iptables=false", *options) as engine:
            yield engine
    finally:
        subprocess.run(["ip", "link", "delete", bridge], check=True)


def comes_up(engine: DockerEngine, daemon: subprocess.Popen[bytes]) -> bool:
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


async def build_images(engine: DockerEngine) -> None:
    """All that tests run. Raises NoEngine."""
    found = shutil.which("busybox")
    if found is None:
        raise NoEngine("no static busybox to build images from: install busybox-static")
    busybox = Path(found)
    tailscaled = Path(os.environ["ELIZACLOUD_TAILSCALED_BIN"]).resolve()
    try:
        await build_sidecar(engine.url, SIDECAR_IMAGE, busybox=busybox, tailscaled=tailscaled)
    except Misconfigured as error:
        raise NoEngine(str(error)) from error
    async with Docker(engine.url) as docker:
        for name, user in ((AGENT_IMAGE, "1000:1000"), (ROOT_AGENT_IMAGE, "0:0")):
            context = io.BytesIO(_agent_context(busybox, user=user))
            await docker.images.build(fileobj=context, encoding="identity", tag=name)
    await wrap(engine.url, AGENT_IMAGE, EMBEDDED_IMAGE, busybox=busybox, tailscaled=tailscaled)


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
            ("rootfs/www/page", b"a page\n", 0o644),
        ):
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
        for command in AGENT_COMMANDS:
            link = tarfile.TarInfo(f"rootfs/bin/{command}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    return buffer.getvalue()
