"""Build images out of files that the machine has; nothing is downloaded.

The sidecar's (container/Dockerfile.sidecar), and the seed's way: an agent's own image with tailscaled and container-init
in it, for where a sidecar cannot be, as on a host that is not ours (`elizacloud agent create --external`).
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import ssl
import tarfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

from elizacloud.errors import Misconfigured, RuntimeRefused
from elizacloud.runtime.docker.engine import Engine
from elizacloud.runtime.docker.handed import NODE_DIRECTORY, SHELL, STATE_DIRECTORY, TOOLS_DIRECTORY
from elizacloud.runtime.docker.host import CONTENT
from elizacloud.runtime.docker.images import Image, image_of

BUILD_SECONDS = 300.0

DOCKERFILE = "Dockerfile.sidecar"
_COMMANDS = ("cat", "env", "mkdir", "mkfifo", "mktemp", "nc", "rm", "sed", "sh", "sleep", "timeout")
"""What container-init uses; busybox is each of them."""
_INTERPRETER = re.compile(rb"/ld-(?:linux|musl)[^\0]{0,30}\.so\.[0-9]\0")
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
_DIRECTORIES = ("/usr", "/usr/bin", "/usr/lib", TOOLS_DIRECTORY)


async def build_sidecar(url: str, name: str, *, busybox: Path, tailscaled: Path) -> str:
    """Build it on a Docker host under this name; its id. Raises Misconfigured for files that cannot serve, and the
    Engine's errors."""
    context = sidecar_context(busybox=busybox, tailscaled=tailscaled)
    return await _build(url, name, context, DOCKERFILE, {CONTENT: _digest(context)})


def content_of_sidecar(*, busybox: Path, tailscaled: Path) -> str:
    """What is on the label of an image that is built of these. Raises Misconfigured as above."""
    return _digest(sidecar_context(busybox=busybox, tailscaled=tailscaled))


async def wrap(url: str, image: str, name: str, *, busybox: Path, tailscaled: Path) -> str:
    """Build an image under this name that joins a tailnet and then runs as `image`, which is on the host; its id.

    Raises RuntimeRefused `no_command` when there is nothing to run in it, NotFound when it is not on the host, and as above.
    """
    engine = Engine(url)
    try:
        async with engine.asked(f"look at the image {image}") as docker:
            inner = image_of(image, await docker.images.inspect(image))
    finally:
        await engine.close()
    if not (command := (*inner.entrypoint, *inner.command)):
        raise RuntimeRefused(f"cannot wrap {image}: it has no command of its own", code="no_command")
    context = wrapped_context(inner, command, busybox=busybox, tailscaled=tailscaled)
    return await _build(url, name, context, "Dockerfile")


def _digest(context: bytes) -> str:
    return hashlib.sha256(context).hexdigest()


async def _build(url: str, name: str, context: bytes, dockerfile: str, labels: Mapping[str, str] | None = None) -> str:
    engine = Engine(url)
    try:
        async with engine.asked(f"build the image {name}", within_seconds=BUILD_SECONDS) as docker:
            await docker.images.build(
                fileobj=io.BytesIO(context), encoding="identity", path_dockerfile=dockerfile, tag=name, labels=labels
            )
            return str((await docker.images.inspect(name))["Id"])
    finally:
        await engine.close()


def locate_container() -> Path:
    """In an installed package `_container` beside this package's modules; in a checkout `container/`."""
    package = Path(str(resources.files("elizacloud")))
    installed, checkout = package / "_container", package.parents[1] / "container"
    return installed if installed.is_dir() else checkout


def sidecar_context(*, busybox: Path, tailscaled: Path) -> bytes:
    """A tar archive. Raises Misconfigured for a binary that cannot be read, or that is not static."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _file(tar, DOCKERFILE, _read(locate_container() / DOCKERFILE), 0o644)
        _programs(tar, busybox, tailscaled)
        _directory(tar, "rootfs/bin", 0o755)
        for directory in ("", "/home", "/state"):
            _directory(tar, f"rootfs{STATE_DIRECTORY}{directory}", 0o777)  # the agent's image has a user of its own
        _directory(tar, "rootfs/run", 0o1777)  # runc gives a tmpfs the mode of what it is mounted on
        for command in _COMMANDS:
            _link(tar, f"rootfs/bin/{command}", SHELL)
        if (authorities := _authorities()) is not None:
            for directory in ("/etc", "/etc/ssl", "/etc/ssl/certs"):
                _directory(tar, f"rootfs{directory}", 0o755)
            _file(tar, f"rootfs{AUTHORITIES}", _read(authorities), 0o644)
    return buffer.getvalue()


def _authorities() -> Path | None:
    """Whom this machine trusts; without them tailscaled knows Let's Encrypt alone (net/bakedroots, v1.102.3)."""
    paths = ssl.get_default_verify_paths()
    candidates = (paths.cafile, paths.capath and f"{paths.capath}/ca-certificates.crt", AUTHORITIES)
    return next((Path(path) for path in candidates if path and Path(path).is_file()), None)


def wrapped_context(inner: Image, command: tuple[str, ...], *, busybox: Path, tailscaled: Path) -> bytes:
    """As above."""
    lines = [
        f"FROM {inner.name}",
        "COPY rootfs/ /",
        # Docker gives a volume the owner of what it is mounted on.
        f"COPY --chown={inner.user or '0:0'} node/ {NODE_DIRECTORY}/",
        f"COPY --chown={inner.user or '0:0'} state/ {STATE_DIRECTORY}/",
        "ENV TS_SOCKET=/tmp/tailscale/tailscaled.sock",
        f"VOLUME {NODE_DIRECTORY}",
        f"ENTRYPOINT {json.dumps([SHELL, 'sh', '/usr/bin/container-init'])}",
        f"CMD {json.dumps(command)}",
    ]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _file(tar, "Dockerfile", "\n".join(lines).encode(), 0o644)
        _programs(tar, busybox, tailscaled)
        for directory in ("state", "state/home", "state/state"):
            _directory(tar, directory, 0o700)
    return buffer.getvalue()


def _programs(tar: tarfile.TarFile, busybox: Path, tailscaled: Path) -> None:
    """What both images have: `rootfs`, to be copied to the root, and the empty `node`, to be the node's state."""
    for directory in ("rootfs", *(f"rootfs{path}" for path in _DIRECTORIES)):
        _directory(tar, directory, 0o755)
    _directory(tar, "rootfs/tmp", 0o1777)
    _directory(tar, "node", 0o700)
    _file(tar, "rootfs/usr/bin/container-init", _read(locate_container() / "container-init"), 0o755)
    _file(tar, "rootfs/usr/bin/tailscaled", _static(tailscaled), 0o755)
    _file(tar, f"rootfs{SHELL}", _static(busybox), 0o755)
    _link(tar, "rootfs/usr/bin/tailscale", "tailscaled")


def _static(program: Path) -> bytes:
    content = _read(program)
    if content.startswith(b"\x7fELF") and _INTERPRETER.search(content):
        raise Misconfigured(
            f"cannot build the image: {program} is not static, and the image may lack its libraries; use a static build"
        )
    return content


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"cannot build the image: {path} cannot be read ({error.strerror})") from error


def _directory(tar: tarfile.TarFile, name: str, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode = tarfile.DIRTYPE, mode
    tar.addfile(info)


def _file(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), mode
    tar.addfile(info, io.BytesIO(content))


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    tar.addfile(info)
