import os
from pathlib import Path

import pytest

from elizacloud.binaries.build import build, build_arguments, build_environ
from elizacloud.binaries.errors import BuildFailed
from elizacloud.binaries.golang import Go
from elizacloud.binaries.module import Module, locate_module
from elizacloud.binaries.platforms import Platform
from elizacloud.binaries.progress import Elapsed, silent
from elizacloud.binaries.versions import Kind, Version
from tests.binaries.conftest import script

MODULE = Module(locate_module())
ENVIRON = {"PATH": os.environ["PATH"], "HOME": "/home/someone"}


def test_tailscaled_is_minimal_stamped_and_reproducible(tmp_path: Path) -> None:
    arguments = build_arguments(Kind.TAILSCALED, MODULE, tmp_path)
    assert arguments[-1] == "tailscale.com/cmd/tailscaled"
    assert "-trimpath" in arguments
    assert arguments[arguments.index("-tags") + 1] == MODULE.tailscaled_tags
    assert f"version.shortStamp={MODULE.tailscale_version} " in arguments[arguments.index("-ldflags") + 1]
    assert arguments[arguments.index("-o") + 1] == str(tmp_path / "tailscaled")


def test_both_builds_share_their_packages(tmp_path: Path) -> None:
    shared = [build_arguments(kind, MODULE, tmp_path) for kind in (Kind.TAILSCALED, Kind.DEVCONTROL)]
    tags = [arguments[arguments.index("-tags") + 1] for arguments in shared]
    assert tags[0] == tags[1]


def test_the_users_go_settings_count_and_the_toolchain_stays_local(tmp_path: Path) -> None:
    given = {**ENVIRON, "GOPROXY": "https://goproxy.example", "GOFLAGS": "-p=1", "GOTOOLCHAIN": "auto", "GOWORK": "/w"}
    environ = build_environ(given, Platform("linux", "arm64"), tmp_path)
    assert environ == {
        **given,
        "CGO_ENABLED": "0",
        "GOOS": "linux",
        "GOARCH": "arm64",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }


def test_without_a_home_go_keeps_its_files_in_the_cache(tmp_path: Path) -> None:
    environ = build_environ({}, Platform("linux", "amd64"), tmp_path)
    assert environ["GOPATH"] == str(tmp_path / "gopath")
    assert environ["GOCACHE"] == str(tmp_path / "gocache")


async def run_build(kind: Kind, go: Path, into: Path) -> None:
    with Elapsed("building", silent) as elapsed:
        await build(
            kind,
            go=Go(go, Version(1, 27)),
            module=MODULE,
            platform=Platform("linux", "amd64"),
            into=into,
            environ=ENVIRON,
            elapsed=elapsed,
        )


async def test_the_one_binary_is_also_the_cli(tmp_path: Path) -> None:
    go = script(tmp_path / "go", 'while [ "$1" != -o ]; do shift; done; pwd > "$2"')
    await run_build(Kind.TAILSCALED, go, tmp_path)
    assert (tmp_path / "tailscale").resolve() == tmp_path / "tailscaled"
    assert (tmp_path / "tailscaled").read_text().strip() == str(MODULE.path.resolve())


async def test_a_failed_build_says_gos_last_words(tmp_path: Path) -> None:
    go = script(tmp_path / "go", "echo net/http; echo 'dial tcp: lookup proxy.golang.org: no such host' >&2; exit 1")
    with pytest.raises(BuildFailed, match=r"cannot build devcontrol with Go 1\.27\.0: exit status 1: .*no such host"):
        await run_build(Kind.DEVCONTROL, go, tmp_path)


async def test_a_go_that_vanished_is_named(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="cannot build devcontrol: cannot start"):
        await run_build(Kind.DEVCONTROL, tmp_path / "go", tmp_path)
