"""A real OpenSSH server on loopback for tests of `ssh://`: a host key and one client's key of its own, and a port.

Whoever logs in is whoever runs the tests. Where there is no sshd, tests that need one are skipped with the reason.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.docker_engine import DockerEngine
from tests.ports import free_port

START_SECONDS = 10.0
STOP_SECONDS = 10.0
LOOK_SECONDS = 0.02
PRIVILEGES_PARTED = Path("/run/sshd")
"""An sshd of root insists on this empty directory; its package leaves it to the system's start to make it."""


class NoSshd(Exception):
    """Why no sshd can be had on this machine."""


@dataclass(frozen=True, slots=True)
class Sshd:
    port: int
    directory: Path

    def home(self, directory: Path, *, port: int) -> Path:
        """Make it a home that knows this server, behind another port, and has the key that is let in."""
        ssh = directory / ".ssh"
        ssh.mkdir(mode=0o700)
        host_key = (self.directory / "host_key.pub").read_text()
        (ssh / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
        shutil.copy(self.directory / "client_key", ssh / "id_ed25519")
        return directory

    def url(self, *, port: int) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{port}"


@pytest.fixture(scope="session")
def docker_sshd(docker_engine: DockerEngine) -> Iterator[Sshd]:
    """One for the session, where `docker` finds the tests' engine."""
    with contextlib.ExitStack() as stack:
        try:
            server = stack.enter_context(an_sshd(f"DOCKER_HOST={docker_engine.url}"))
        except NoSshd as reason:
            pytest.skip(str(reason))
        yield server


@contextlib.contextmanager
def an_sshd(*variables: str, options: str = "") -> Iterator[Sshd]:
    """One that gives its sessions these variables, and ends with the block. Raises NoSshd."""
    program = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if program is None or shutil.which("ssh-keygen") is None:
        raise NoSshd("no sshd to reach Docker through: install openssh-server")
    if shutil.which("docker") is None:
        raise NoSshd("no docker for an sshd to run: install its command line")
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as name:
        directory = Path(name)
        if os.geteuid() == 0:
            PRIVILEGES_PARTED.mkdir(mode=0o755, exist_ok=True)
        for key in ("host_key", "client_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", directory / key], check=True)
        server = Sshd(free_port(), directory)
        (directory / "config").write_text(_config(server, variables) + options)
        with (directory / "log").open("a") as log:
            process = subprocess.Popen(
                [program, "-D", "-e", "-f", directory / "config"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        try:
            _until_it_listens(server, process)
            yield server
        finally:
            process.terminate()
            process.wait(STOP_SECONDS)


def _config(server: Sshd, variables: tuple[str, ...]) -> str:
    return f"""
ListenAddress 127.0.0.1:{server.port}
HostKey {server.directory}/host_key
AuthorizedKeysFile {server.directory}/client_key.pub
AuthenticationMethods publickey
PermitRootLogin prohibit-password
StrictModes no
UsePAM no
PidFile none
SetEnv {" ".join(variables)}
"""


def _until_it_listens(server: Sshd, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", server.port), timeout=1):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LOOK_SECONDS)
            raise AssertionError(f"sshd ended: {(server.directory / 'log').read_text()}")
        assert time.monotonic() < deadline, "sshd does not listen"
