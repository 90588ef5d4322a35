"""The build context of the sidecar's image, out of files that the machine has (container/Dockerfile.sidecar)."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from elizacloud.runtime.docker.handed import TOOLS_DIRECTORY

DOCKERFILE = "Dockerfile.sidecar"
_COMMANDS = ("cat", "env", "mkdir", "mkfifo", "mktemp", "nc", "rm", "sed", "sh", "sleep", "timeout")
"""What container-init uses; busybox is each of them."""
_DIRECTORIES = ("/bin", "/usr", "/usr/bin", "/usr/lib", TOOLS_DIRECTORY)


def build_context(*, container: Path, busybox: Path, tailscaled: Path) -> bytes:
    """A tar archive. `container` is this project's directory of that name; the binaries are static. Raises OSError."""
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
    content = path.read_bytes()
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    tar.addfile(info, io.BytesIO(content))


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    tar.addfile(info)
