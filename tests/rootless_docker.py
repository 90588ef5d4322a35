"""A rootless dockerd for tests, of a user that only its own mount namespace knows: nothing of the machine is changed.

Where systemd delegates no cgroups to it, which is so of any that is started like this, it limits and freezes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docker_engine import STOP_SECONDS, DockerEngine, NoEngine, build_images, comes_up

USER, UID, SUBORDINATE = "ec-rootless", 64123, "3000000:65536"
NEEDED = ("dockerd", "rootlesskit", "slirp4netns", "newuidmap", "unshare", "setpriv", "mount")
DEBIANS = "/usr/share/docker.io/contrib"
_ALONE = """
set -eu
for name in passwd group subuid subgid; do mount --bind "$1/etc/$name" "/etc/$name"; done
exec setpriv --reuid="$2" --regid="$2" --clear-groups \\
  "$3" --host="unix://$1/run/docker.sock" --data-root="$1/data" --log-level=warn
"""


@pytest.fixture(scope="session")
def rootless_engine() -> Iterator[DockerEngine]:
    """One for the session, with all images."""
    with contextlib.ExitStack() as stack:
        try:
            engine = stack.enter_context(a_rootless_dockerd())
            asyncio.run(build_images(engine))
        except NoEngine as reason:
            pytest.skip(str(reason))
        yield engine


@contextlib.contextmanager
def a_rootless_dockerd() -> Iterator[DockerEngine]:
    """One without images, that ends with the block. Raises NoEngine."""
    program = shutil.which("dockerd-rootless.sh", path=f"{os.environ['PATH']}:{DEBIANS}")
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if program is None or missing:
        raise NoEngine(f"no rootless dockerd to start: there is no {' and no '.join(missing) or 'dockerd-rootless.sh'}")
    if os.geteuid() != 0:
        raise NoEngine("no rootless dockerd to start: only root can give it a user of its own")
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o711)
        _write_users(directory)
        for own in ("run", "data", "tmp"):
            (directory / own).mkdir(mode=0o700)
            os.chown(directory / own, UID, UID)
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(directory / "data"),
            "TMPDIR": str(directory / "tmp"),
            "XDG_RUNTIME_DIR": str(directory / "run"),
        }
        with (directory / "log").open("a") as log:
            process = subprocess.Popen(
                ["unshare", "--mount", "sh", "-c", _ALONE, "sh", name, str(UID), program],
                env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        engine = DockerEngine(directory / "run" / "docker.sock")
        try:
            if not comes_up(engine, process):
                last = (directory / "log").read_text().splitlines()[-1:] or ["it said nothing"]
                raise NoEngine(f"a rootless dockerd does not run on this machine: {last[0]}")
            yield engine
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _write_users(directory: Path) -> None:
    etc = directory / "etc"
    etc.mkdir(mode=0o755)
    (etc / "passwd").write_text(Path("/etc/passwd").read_text() + f"{USER}:x:{UID}:{UID}::/:/bin/sh\n")
    (etc / "group").write_text(Path("/etc/group").read_text() + f"{USER}:x:{UID}:\n")
    for name in ("subuid", "subgid"):
        (etc / name).write_text(f"{USER}:{SUBORDINATE}\n")
