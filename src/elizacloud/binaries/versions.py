"""What a binary says it is, and which versions we support. Pure, but for `ask`, which runs it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from elizacloud.binaries.command import run
from elizacloud.binaries.errors import BinaryUnsupported
from elizacloud.processes import SpawnFailed


class Kind(StrEnum):
    HEADSCALE = "headscale"
    TAILSCALED = "tailscaled"
    DEVCONTROL = "devcontrol"


@dataclass(frozen=True, order=True)
class Version:
    major: int
    minor: int
    patch: int = 0

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.patch}"


@dataclass(frozen=True)
class Supported:
    """From `least`, below `below` (None: no limit)."""

    least: Version
    below: Version | None = None

    def __contains__(self, version: Version) -> bool:
        return self.least <= version and (self.below is None or version < self.below)

    def __str__(self) -> str:
        least = f"{self.least.major}.{self.least.minor}"
        below = f", below {self.below.major}.{self.below.minor}" if self.below else ""
        return f"{least} or newer{below}"


SUPPORTED = {
    Kind.HEADSCALE: Supported(Version(0, 27), Version(0, 31)),
    Kind.TAILSCALED: Supported(Version(1, 80)),
    Kind.DEVCONTROL: Supported(Version(0, 0)),
}
ASKING = {Kind.HEADSCALE: "version", Kind.TAILSCALED: "--version", Kind.DEVCONTROL: "version"}
ASK_SECONDS = 15.0

# The first line of `tailscaled --version` is the bare version; Headscale writes "headscale version v0.29.2" since 0.26 and
# the bare version before (cmd/headscale/cli/version.go); a line of advice about updates may precede it.
_ANSWER = re.compile(r"(?:headscale version |devcontrol )?(?:v?(\d+)\.(\d+)(?:\.(\d+))?\S*|dev\S*)")


def parse_answer(kind: Kind, lines: list[str]) -> Version | None:
    """The version in what the binary printed; None for a build that says "dev". Raises ValueError for anything else."""
    for line in lines:
        if (match := _ANSWER.fullmatch(line.strip())) is None:
            continue
        if (kind is Kind.DEVCONTROL) != ("devcontrol" in line):
            break
        major, minor, patch = match.groups()
        return Version(int(major), int(minor), int(patch or 0)) if major else None
    said = next((line.strip() for line in lines if line.strip()), "nothing")
    raise ValueError(f"it is not a {kind}; asked for its version it said {said[:80]!r}")


async def ask(kind: Kind, path: Path, environ: Mapping[str, str]) -> Version | None:
    """Run the binary for its version and check it; None for a build that says "dev". Raises BinaryUnsupported."""
    try:
        exit_, lines = await run([path, ASKING[kind]], name=f"{kind} version", environ=environ, seconds=ASK_SECONDS)
        version = parse_answer(kind, lines)
    except (ValueError, SpawnFailed, TimeoutError) as error:
        raise BinaryUnsupported(f"cannot use {path} as {kind}: {error}") from error
    if not exit_.clean:
        raise BinaryUnsupported(f"cannot use {path} as {kind}: asked for its version it ended with {exit_}")
    if version is not None and version not in SUPPORTED[kind]:
        raise BinaryUnsupported(f"cannot use {path}: it is {kind} {version}; use {SUPPORTED[kind]}")
    return version
