"""Getting headscale, tailscaled and devcontrol, each from the first place that has it.

setting -> PATH -> cache -> official release -> go build (not for headscale)

find.py       Binaries: that order, and one sentence with every way out when all fail
pins.py       the releases we take: version, URL, SHA-256
download.py   a resumable download that yields a verified file or nothing
build.py      go build of the module in devcontrol/, with the Go of golang.py
cache.py      the directory that runs share: a lock an artefact, published by rename
versions.py   what a binary says it is, and what we support
progress.py   what is told while it takes long, and two ways to show it
"""

from elizacloud.binaries.errors import BinaryMissing, BinaryUnsupported, BuildFailed, DownloadFailed
from elizacloud.binaries.find import Binaries, Binary, Source
from elizacloud.binaries.platforms import Platform
from elizacloud.binaries.progress import Progress, Update, show_progress
from elizacloud.binaries.versions import Kind, Version

__all__ = [
    "Binaries",
    "Binary",
    "BinaryMissing",
    "BinaryUnsupported",
    "BuildFailed",
    "DownloadFailed",
    "Kind",
    "Platform",
    "Progress",
    "Source",
    "Update",
    "Version",
    "show_progress",
]
