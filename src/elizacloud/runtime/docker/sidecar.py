"""The build context of the sidecar's image, out of files that the machine has (container/Dockerfile.sidecar)."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from elizacloud.runtime.docker.handed import TOOLS_DIRECTORY

DOCKERFILE = "Dockerfile.sidecar"
_COMMANDS = ("cat", "env", "mkdir", "mkfifo", "mktemp", "nc", "rm", "sed", "sh", "sleep", "timeout")
"""What container-init uses; busybox is each of them."""


def build_context(*, container: Path, busybox: Path, tailscaled: Path) -> bytes:
    """A tar archive. `container` is this project's directory of that name; the binaries are static. Raises OSError."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add(tar, DOCKERFILE, container / DOCKERFILE, 0o644)
        _add(tar, "rootfs/usr/bin/container-init", container / "container-init", 0o755)
        _add(tar, "rootfs/usr/bin/tailscaled", tailscaled, 0o755)
        _add(tar, f"rootfs{TOOLS_DIRECTORY}/busybox", busybox, 0o755)
        _link(tar, "rootfs/usr/bin/tailscale", "tailscaled")
        for command in _COMMANDS:
            _link(tar, f"rootfs/bin/{command}", f"{TOOLS_DIRECTORY}/busybox")
        for directory in ("node", "rootfs/run", "rootfs/tmp"):
            info = tarfile.TarInfo(directory)
            info.type, info.mode = tarfile.DIRTYPE, 0o700 if directory == "node" else 0o755
            tar.addfile(info)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, path: Path, mode: int) -> None:
    content = path.read_bytes()
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    tar.addfile(info, io.BytesIO(content))


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    tar.addfile(info)
