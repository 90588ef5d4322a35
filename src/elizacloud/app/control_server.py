"""Which control server `up` uses: one of its own that it supervises, or one that runs elsewhere.

`auto` takes Headscale where it can be had and devcontrol where not. A data dir keeps the kind that it was made with,
because the nodes of one kind are unknown to the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import structlog
from pydantic import SecretStr

from elizacloud.binaries import Binaries, BinaryMissing, Progress
from elizacloud.binaries.progress import silent
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


def headscale_of(settings: Settings) -> tuple[str, SecretStr]:
    """URL and key of the Headscale that a part of the cloud is given; Misconfigured when it is given none."""
    if settings.headscale_api_url is None or settings.headscale_api_key is None:
        raise Misconfigured(
            "cannot start without a Headscale: set ELIZACLOUD_HEADSCALE_API_URL and "
            "ELIZACLOUD_HEADSCALE_API_KEY (file:/path is accepted), or use `elizacloud up`"
        )
    return settings.headscale_api_url, settings.headscale_api_key


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


async def obtain(settings: Settings, directory: Path, progress: Progress = silent) -> Remote | Binary:
    """The control server to use, its binary found, downloaded or built. Raises BinaryMissing and BinaryUnsupported."""
    remembered = load(directory)
    chosen = choose(settings.headscale, remembered.kind if remembered else None)
    if isinstance(chosen, Remote):
        return chosen
    if chosen is not None and chosen.path is not None:
        settings = settings.model_copy(update={"headscale_bin": chosen.path})
    binaries = Binaries.from_settings(settings, progress)
    if chosen is not None:
        return await _binary(binaries, chosen.kind)
    try:
        return await _binary(binaries, Kind.HEADSCALE)
    except BinaryMissing as error:
        log.info("no headscale can be had here, using devcontrol", reason=str(error))
        return await _binary(binaries, Kind.DEVCONTROL)


async def _binary(binaries: Binaries, kind: Kind) -> Binary:
    found = await (binaries.headscale() if kind is Kind.HEADSCALE else binaries.devcontrol())
    return Binary(kind, found.path, str(found.version or "dev"))
