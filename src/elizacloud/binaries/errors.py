"""Why a binary could not be had. `Binaries` catches the last three and tries the next place; callers see the first two."""

from __future__ import annotations

from elizacloud.errors import Misconfigured, Unavailable


class BinaryMissing(Misconfigured):
    """No place had it. The message names every way to supply it."""

    code = "binary_missing"


class BinaryUnsupported(Misconfigured):
    """A file that does not run, is something else, or has a version that we do not support."""

    code = "binary_unsupported"


class DownloadFailed(Unavailable):
    """Nothing usable was left behind."""

    code = "download_failed"


class BuildFailed(Misconfigured):
    """Go, the module, or the network that it needs is missing or broken."""

    code = "build_failed"
