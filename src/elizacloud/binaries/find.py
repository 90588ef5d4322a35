"""Finds each binary in the first place that has it: setting, PATH, cache, official release, build.

Nothing unverified is ever run: a download has the SHA-256 of pins.py (or of the operator's setting) before it is executable, a
build's modules have those of go.sum, and what is found on PATH or in the cache is the machine owner's own.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Self

import aiohttp
import structlog

from elizacloud.binaries.archive import extract
from elizacloud.binaries.build import build, build_environ
from elizacloud.binaries.cache import Cache, CacheUnusable
from elizacloud.binaries.download import Remote, download
from elizacloud.binaries.errors import BinaryMissing, BinaryUnsupported, BuildFailed, DownloadFailed
from elizacloud.binaries.golang import find_go
from elizacloud.binaries.missing import missing_message, variable
from elizacloud.binaries.module import Module, locate_module
from elizacloud.binaries.pins import PINS, Release
from elizacloud.binaries.platforms import Platform
from elizacloud.binaries.progress import Elapsed, Progress, silent
from elizacloud.binaries.versions import Kind, Version, ask
from elizacloud.settings import Settings

log = structlog.get_logger()

BUILDABLE = (Kind.TAILSCALED, Kind.DEVCONTROL)


class Source(StrEnum):
    SETTING = "setting"
    PATH = "path"
    CACHE = "cache"
    RELEASE = "release"
    BUILD = "build"


@dataclass(frozen=True)
class Binary:
    kind: Kind
    path: Path
    version: Version | None
    """None for a build that calls itself "dev"."""
    source: Source


class Binaries:
    """May be asked for several at once, by several processes with one cache: each is made only once."""

    def __init__(
        self,
        *,
        cache_dir: Path,
        overrides: Mapping[Kind, Path | None] | None = None,
        headscale_sha256: str | None = None,
        progress: Progress = silent,
        platform: Platform | None = None,
        environ: Mapping[str, str] | None = None,
        releases: Mapping[Kind, Release] = PINS,
        module: Path | None = None,
    ) -> None:
        """`overrides` and `headscale_sha256` are the settings *_bin and headscale_sha256; the rest has good defaults."""
        self._cache = Cache(cache_dir)
        self._overrides = overrides or {}
        self._headscale_sha256 = headscale_sha256
        self._progress = progress
        self._platform = platform or Platform.current()
        self._environ = dict(os.environ if environ is None else environ)
        self._releases = releases
        self._module = Module(module or locate_module())

    @classmethod
    def from_settings(cls, settings: Settings, progress: Progress = silent) -> Self:
        overrides = {
            Kind.HEADSCALE: settings.headscale_bin,
            Kind.TAILSCALED: settings.tailscaled_bin,
            Kind.DEVCONTROL: settings.devcontrol_bin,
        }
        return cls(
            cache_dir=settings.cache_dir,
            overrides=overrides,
            headscale_sha256=settings.headscale_sha256,
            progress=progress,
        )

    async def headscale(self) -> Binary:
        """Raises BinaryMissing and BinaryUnsupported, like the two below."""
        return await self._find(Kind.HEADSCALE)

    async def tailscaled(self) -> Binary:
        """The CLI is beside it, as `tailscale`, unless it came from a setting or PATH."""
        return await self._find(Kind.TAILSCALED)

    async def devcontrol(self) -> Binary:
        return await self._find(Kind.DEVCONTROL)

    async def _find(self, kind: Kind) -> Binary:
        override = self._overrides.get(kind)
        if override is not None:
            try:
                binary = await self._checked(kind, override.expanduser().absolute(), Source.SETTING)
            except BinaryUnsupported as error:
                where = f"--headscale or {variable(kind)}" if kind is Kind.HEADSCALE else variable(kind)
                raise BinaryUnsupported(f"{error} ({where} names it: correct or unset that)") from error
            if binary.version is None:
                log.warning("binary tells no version, assumed to be supported", kind=kind, path=str(binary.path))
            return binary
        places: list[Callable[[Kind], Awaitable[Binary | None]]] = [
            self._on_path,
            self._cached,
            self._released,
            self._built,
        ]
        reasons = []
        for place in places:
            try:
                binary_or_none = await place(kind)
            except (BinaryUnsupported, DownloadFailed, BuildFailed, CacheUnusable) as error:
                log.info("binary not found here", kind=kind, reason=str(error))
                reasons.append(str(error))
                continue
            if binary_or_none is not None:
                log.info("binary found", kind=kind, path=str(binary_or_none.path), source=binary_or_none.source)
                return binary_or_none
        raise BinaryMissing(self._missing(kind, reasons))

    async def _checked(self, kind: Kind, path: Path, source: Source) -> Binary:
        return Binary(kind, path, await ask(kind, path, self._environ), source)

    async def _on_path(self, kind: Kind) -> Binary | None:
        found = shutil.which(kind, path=self._environ.get("PATH", ""))
        if found is None:
            return None
        binary = await self._checked(kind, Path(found).absolute(), Source.PATH)
        if binary.version is None:
            raise BinaryUnsupported(
                f"cannot use {found}: it tells no version; set {variable(kind)} to it to use it anyway"
            )
        return binary

    async def _cached(self, kind: Kind) -> Binary | None:
        for name in (self._release_name, self._build_name):
            directory = name(kind)
            if directory and (path := self._cache.find(directory, kind)):
                return await self._checked(kind, path, Source.CACHE)
        return None

    async def _made_meanwhile(self, kind: Kind) -> Binary | None:
        """What another run has put into the cache while we waited for its lock; what does not run is made anew."""
        try:
            return await self._cached(kind)
        except BinaryUnsupported:
            return None

    async def _released(self, kind: Kind) -> Binary | None:
        release, name = self._releases.get(kind), self._release_name(kind)
        if release is None or name is None:
            return None
        sha256 = self._digest(kind, release)
        if sha256 is None:
            raise DownloadFailed(
                f"cannot download {kind} {release.version} for {self._platform}: we have no SHA-256 to verify it with"
            )
        label = f"downloading {kind} {release.version}"
        async with self._cache.lock(name, lambda _: None):
            if (cached := await self._made_meanwhile(kind)) is not None:
                return cached
            remote = Remote(label, release.url(self._platform), sha256, release.max_bytes)
            async with aiohttp.ClientSession(trust_env=True, auto_decompress=False) as session:
                file = await download(remote, self._cache.partial(name), session=session, progress=self._progress)
            with self._cache.temporary(name) as directory:
                if release.members:
                    await asyncio.to_thread(extract, file, release.members, directory)
                    file.unlink()
                else:
                    file.chmod(0o755)
                    file.rename(directory / kind)
                return await self._published(kind, directory, name, Source.RELEASE)

    async def _built(self, kind: Kind) -> Binary | None:
        name = self._build_name(kind)
        if name is None:
            return None
        label = f"building {kind}"
        go = await find_go(self._module.least_go, cache=self._cache, environ=self._environ, progress=self._progress)
        with Elapsed(label, self._progress) as elapsed:

            def waiting(_: float) -> None:
                elapsed.detail("waiting for another build")

            # One build at a time: two would compile the packages that they share twice.
            async with self._cache.lock(name, waiting), self._cache.lock("go-build", waiting):
                if (cached := await self._made_meanwhile(kind)) is not None:
                    return cached
                with self._cache.temporary(name) as directory:
                    environ = build_environ(self._environ, self._platform, self._cache.root)
                    await build(
                        kind,
                        go=go,
                        module=self._module,
                        platform=self._platform,
                        into=directory,
                        environ=environ,
                        elapsed=elapsed,
                    )
                    return await self._published(kind, directory, name, Source.BUILD)

    async def _published(self, kind: Kind, directory: Path, name: str, source: Source) -> Binary:
        """Only what runs and tells a supported version gets its final name."""
        made = await self._checked(kind, directory / kind, source)
        final = await asyncio.to_thread(self._cache.publish, directory, name)
        return Binary(kind, final / kind, made.version, source)

    def _release_name(self, kind: Kind) -> str | None:
        release = self._releases.get(kind)
        return f"{kind}-{release.version}-{self._platform.os}-{self._platform.arch}" if release else None

    def _build_name(self, kind: Kind) -> str | None:
        if kind not in BUILDABLE:
            return None
        return f"{self._module.name(kind)}-{self._platform.os}-{self._platform.arch}"

    def _digest(self, kind: Kind, release: Release) -> str | None:
        given = self._headscale_sha256 if kind is Kind.HEADSCALE else None
        return given or (release.sha256.get(self._platform.arch) if self._platform.os == "linux" else None)

    def _missing(self, kind: Kind, reasons: list[str]) -> str:
        release = self._releases.get(kind)
        name = self._release_name(kind) or self._build_name(kind) or kind
        return missing_message(
            kind,
            reasons,
            copy_to=self._cache.path(name) / kind,
            release_url=release.url(self._platform) if release else None,
            sha256=self._digest(kind, release) if release else None,
            least_go=self._module.least_go if kind in BUILDABLE else None,
        )
