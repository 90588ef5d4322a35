"""Build the sidecar's image out of files that the machine has (container/Dockerfile.sidecar); nothing is downloaded."""

from __future__ import annotations

import io
import re
import tarfile
from importlib import resources
from pathlib import Path

from elizacloud.errors import Misconfigured
from elizacloud.runtime.docker.engine import Engine
from elizacloud.runtime.docker.handed import TOOLS_DIRECTORY

BUILD_SECONDS = 300.0

DOCKERFILE = "Dockerfile.sidecar"
_COMMANDS = ("cat", "env", "mkdir", "mkfifo", "mktemp", "nc", "rm", "sed", "sh", "sleep", "timeout")
"""What container-init uses; busybox is each of them."""
_INTERPRETER = re.compile(rb"/ld-(?:linux|musl)[^\0]{0,30}\.so\.[0-9]\0")
_DIRECTORIES = ("/bin", "/usr", "/usr/bin", "/usr/lib", TOOLS_DIRECTORY)


async def build_sidecar(url: str, name: str, *, busybox: Path, tailscaled: Path) -> str:
    """Build it on a Docker host under this name; its id. Raises Misconfigured for files that cannot serve, and the
    Engine's errors."""
    context = build_context(busybox=busybox, tailscaled=tailscaled)
    engine = Engine(url)
    try:
        async with engine.asked("build the sidecar's image", within_seconds=BUILD_SECONDS) as docker:
            await docker.images.build(
                fileobj=io.BytesIO(context), encoding="identity", path_dockerfile=DOCKERFILE, tag=name
            )
            return str((await docker.images.inspect(name))["Id"])
    finally:
        await engine.close()


def locate_container() -> Path:
    """In an installed package `_container` beside this package's modules; in a checkout `container/`."""
    package = Path(str(resources.files("elizacloud")))
    installed, checkout = package / "_container", package.parents[1] / "container"
    return installed if installed.is_dir() else checkout


def build_context(*, busybox: Path, tailscaled: Path) -> bytes:
    """A tar archive. Raises Misconfigured for a binary that cannot be read, or that is not static."""
    container = locate_container()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for directory in ("rootfs", *(f"rootfs{path}" for path in _DIRECTORIES)):
            _directory(tar, directory, 0o755)
        for directory in ("rootfs/run", "rootfs/tmp"):
            _directory(tar, directory, 0o1777)  # runc gives a tmpfs the mode of what it is mounted on
        _directory(tar, "node", 0o700)
        _add(tar, DOCKERFILE, container / DOCKERFILE, 0o644)
        _add(tar, "rootfs/usr/bin/container-init", container / "container-init", 0o755)
        _add(tar, "rootfs/usr/bin/tailscaled", tailscaled, 0o755)
        _add(tar, f"rootfs{TOOLS_DIRECTORY}/busybox", busybox, 0o755)
        _link(tar, "rootfs/usr/bin/tailscale", "tailscaled")
        for command in _COMMANDS:
            _link(tar, f"rootfs/bin/{command}", f"{TOOLS_DIRECTORY}/busybox")
    return buffer.getvalue()


def _directory(tar: tarfile.TarFile, name: str, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    tar.addfile(info)


def _add(tar: tarfile.TarFile, name: str, path: Path, mode: int) -> None:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"cannot build the sidecar's image: {path} cannot be read ({error.strerror})") from error
    if content.startswith(b"\x7fELF") and _INTERPRETER.search(content):
        raise Misconfigured(
            f"cannot build the sidecar's image: {path} is not static, and the image has no libraries; use a static build"
        )
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    tar.addfile(info, io.BytesIO(content))


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    tar.addfile(info)
