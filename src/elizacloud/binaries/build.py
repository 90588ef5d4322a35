"""`go build` of tailscaled and devcontrol, from the module that we ship and its committed go.sum."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from elizacloud.binaries.command import run
from elizacloud.binaries.errors import BuildFailed
from elizacloud.binaries.golang import Go
from elizacloud.binaries.module import TAILSCALED_PACKAGE, Module
from elizacloud.binaries.platforms import Platform
from elizacloud.binaries.progress import Elapsed
from elizacloud.binaries.versions import Kind
from elizacloud.processes import SpawnFailed

BUILD_SECONDS = 1800.0


def build_arguments(kind: Kind, module: Module, into: Path) -> list[str]:
    """What follows `go`. The one binary of the minimal tailscaled is also the CLI when called `tailscale`.

    devcontrol gets the tags of tailscaled, which change nothing in a server, so that the packages that both use are
    compiled once: that makes its build three times as fast.
    """
    common = ["build", "-v", "-trimpath", "-buildvcs=false", "-tags", module.tailscaled_tags, "-o", str(into / kind)]
    if kind is Kind.DEVCONTROL:
        return [*common, "-ldflags", "-s -w", "."]
    version = module.tailscale_version
    stamps = f"-X tailscale.com/version.shortStamp={version} -X tailscale.com/version.longStamp={version}"
    return [*common, "-ldflags", f"-s -w {stamps}", TAILSCALED_PACKAGE]


def build_environ(environ: Mapping[str, str], platform: Platform, caches: Path) -> dict[str, str]:
    """The user's own Go settings (GOFLAGS, GOPROXY, ...) count; ours are what makes the result the same everywhere."""
    fixed = {"CGO_ENABLED": "0", "GOOS": platform.os, "GOARCH": platform.arch, "GOTOOLCHAIN": "local", "GOWORK": "off"}
    # Without HOME Go refuses to choose these itself.
    places = {} if "HOME" in environ else {"GOPATH": str(caches / "gopath"), "GOCACHE": str(caches / "gocache")}
    return {**places, **environ, **fixed}


async def build(
    kind: Kind, *, go: Go, module: Module, platform: Platform, into: Path, environ: Mapping[str, str], elapsed: Elapsed
) -> None:
    """Puts the binary, for tailscaled also `tailscale`, into `into`. Raises BuildFailed."""
    argv = [str(go.path), *build_arguments(kind, module, into)]
    try:
        exit_, lines = await run(
            argv,
            name=f"go build {kind}",
            environ=environ,
            cwd=module.path,
            seconds=BUILD_SECONDS,
            on_line=elapsed.detail,
        )
    except (SpawnFailed, TimeoutError) as error:
        raise BuildFailed(f"cannot build {kind}: {error}") from error
    if not exit_.clean:
        raise BuildFailed(f"cannot build {kind} with Go {go.version}: {exit_}: {'; '.join(lines[-3:])}")
    if kind is Kind.TAILSCALED:
        (into / "tailscale").symlink_to(kind)
