"""What to tell somebody whose binary is nowhere: what was tried, and every way to supply it. Pure."""

from __future__ import annotations

from pathlib import Path

from elizacloud.binaries.versions import SUPPORTED, Kind, Version


def variable(kind: Kind) -> str:
    return f"ELIZACLOUD_{kind.upper()}_BIN"


def missing_message(
    kind: Kind,
    reasons: list[str],
    *,
    copy_to: Path,
    release_url: str | None,
    sha256: str | None,
    least_go: Version | None,
) -> str:
    """One sentence on what failed, one with the ways out, the easiest first."""
    range_ = "" if kind is Kind.DEVCONTROL else f" {SUPPORTED[kind]}"
    ways = [f"set {variable(kind)} to its path", "put it on PATH", f"copy it to {copy_to}"]
    if release_url:
        digest = f"SHA-256 {sha256}" if sha256 else "give its SHA-256 in ELIZACLOUD_HEADSCALE_SHA256 to have it fetched"
        ways.append(f"fetch {release_url} by hand ({digest})")
    if least_go:
        ways.append(f"install Go {least_go} or newer and let it reach a module proxy (GOPROXY)")
    tried = f": {'; '.join(reasons)}" if reasons else ": it is not on this machine"
    return f"cannot find {kind}{range_}{tried}. Any of these helps: {'; '.join(ways)}."
