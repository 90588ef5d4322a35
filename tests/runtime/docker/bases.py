"""Base images out of what this machine has, for where no public one can be had: a program, its libraries, a shell."""

from __future__ import annotations

import io
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from aiodocker import Docker

TOOLS = ("cat", "chown", "env", "ln", "ls", "mkdir", "mkfifo", "mktemp", "nc", "rm", "sed", "sh", "sleep", "timeout")
_TESTS = ("test", "tests", "idlelib", "tkinter", "ensurepip", "lib2to3", "pydoc_data", "__pycache__")
_LEFT_OUT = frozenset((*_TESTS, "dist-packages", "site-packages"))
_MODULES = Path("/usr/lib/modules-of-python")
"""Not where they are here: that may be below /tmp, which is another one in a container."""


async def build_base(
    url: str, name: str, programs: Iterable[Path], trees: Mapping[Path, Path], *, busybox: Path
) -> None:
    """An image with these programs where they are here, what they are linked with, these trees (by where they are here:
    where they are to be), and busybox's tools."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        files = {path: to / path.relative_to(tree) for tree, to in trees.items() for path in _files_in(tree)}
        files |= {path: path for path in programs}
        files |= {library: library for path in files if _is_linked(path) for library in _libraries_of(path)}
        for path, to in sorted(files.items()):
            tar.add(path.resolve(), arcname=f"rootfs{to}")
        tar.add(busybox, arcname="rootfs/bin/busybox")
        for tool in TOOLS:
            _link(tar, f"rootfs/bin/{tool}", "busybox")
        temporary = tarfile.TarInfo("rootfs/tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(temporary)
        _add_dockerfile(tar, "FROM scratch\nCOPY rootfs/ /\nENV PATH=/usr/bin:/bin\n")
    await _build(url, name, buffer)


async def build_python(url: str, name: str, modules: Iterable[str], *, busybox: Path) -> None:
    """With /usr/bin/python3 of our version, and these modules of our environment."""
    standard = Path(sysconfig.get_path("stdlib"))
    python = Path(sys.executable).resolve()
    home = Path(sysconfig.get_path("purelib"))
    trees = {standard: standard} | {home / module: _MODULES / module for module in modules}
    await build_base(url, f"{name}-files", [python], trees, busybox=busybox)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        _add_dockerfile(tar, f"FROM {name}-files\nRUN ln -s {python} /bin/python3\nENV PYTHONPATH={_MODULES}\n")
    await _build(url, name, buffer)


def _add_dockerfile(tar: tarfile.TarFile, text: str) -> None:
    info = tarfile.TarInfo("Dockerfile")
    content = text.encode()
    info.size = len(content)
    tar.addfile(info, io.BytesIO(content))


async def _build(url: str, name: str, context: io.BytesIO) -> None:
    context.seek(0)
    async with Docker(url) as docker:
        await docker.images.build(fileobj=context, encoding="identity", tag=name)


def _files_in(tree: Path) -> Iterable[Path]:
    for path in tree.rglob("*"):
        if path.is_file() and not _LEFT_OUT & set(path.relative_to(tree).parts):
            yield path


def _is_linked(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _libraries_of(path: Path) -> set[Path]:
    said = subprocess.run(["ldd", path], text=True, capture_output=True, check=False).stdout
    return {Path(word) for line in said.splitlines() for word in line.split() if word.startswith("/")}


def _link(tar: tarfile.TarFile, name: str, target: str) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.SYMTYPE, target
    tar.addfile(info)
