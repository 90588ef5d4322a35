"""Which control server `up` uses: one of its own that it supervises, or one that runs elsewhere.

`auto` takes Headscale where it can be had and devcontrol where not. A data dir keeps the kind that it was made with,
because the nodes of one kind are unknown to the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import structlog

from elizacloud.binaries import Binaries, BinaryMissing
from elizacloud.errors import Misconfigured
from elizacloud.headscale.remembered import Binary, Kind, load
from elizacloud.settings import Settings

log = structlog.get_logger()


@dataclass(frozen=True)
class Remote:
    """A Headscale that somebody else runs."""

    url: str


@dataclass(frozen=True)
class Supervised:
    """A control server of a kind, by the binary at `path` if one was named."""

    kind: Kind
    path: Path | None = None


def choose(wanted: str, remembered: Kind | None) -> Remote | Supervised | None:
    """What the `headscale` setting asks for; None when it is `auto` and the data dir does not say yet."""
    if "://" in wanted:
        if remembered is not None:
            raise Misconfigured(
                f"cannot use the Headscale at {wanted}: this data dir has a {remembered} of its own; use a new data dir",
                code="headscale_kind_changed",
            )
        return Remote(wanted)
    if wanted == "auto":
        return Supervised(remembered) if remembered else None
    if wanted == "devcontrol":
        return Supervised(Kind.DEVCONTROL)
    return Supervised(Kind.HEADSCALE, Path(wanted).expanduser())


async def obtain(settings: Settings, directory: Path, binaries: Binaries) -> Remote | Binary:
    """The control server to use, its binary found, downloaded or built."""
    remembered = load(directory)
    match choose(settings.headscale, remembered.kind if remembered else None):
        case Remote() as remote:
            return remote
        case Supervised(Kind.DEVCONTROL):
            return await _devcontrol(binaries)
        case Supervised(Kind.HEADSCALE, path):
            found = await binaries.headscale(path)
            return Binary(Kind.HEADSCALE, found.path, found.version)
        case _:
            try:
                found = await binaries.headscale()
            except BinaryMissing as error:
                log.info("using devcontrol: no headscale can be had here", reason=str(error))
                return await _devcontrol(binaries)
            return Binary(Kind.HEADSCALE, found.path, found.version)


async def _devcontrol(binaries: Binaries) -> Binary:
    found = await binaries.devcontrol()
    return Binary(Kind.DEVCONTROL, found.path, found.version)
