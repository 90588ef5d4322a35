"""What a running cloud has on its disk. A draft may take its file's place while we look: then it is that file."""

from __future__ import annotations

import stat
from contextlib import suppress
from pathlib import Path


def files(directory: Path) -> dict[str, bytes]:
    """Every regular file below the directory, as `file:` and its path there."""
    found = {}
    for path in sorted(directory.rglob("*")):
        with suppress(FileNotFoundError):
            if stat.S_ISREG(path.lstat().st_mode):
                found[f"file:{path.relative_to(directory)}"] = path.read_bytes()
    return found


def open_to_others(directory: Path) -> list[str]:
    """What is not for its owner alone: directories 0700, files 0600. A socket's mode is its maker's, tailscaled's is 0666,
    so it is the directory that guards it."""
    found = []
    for path in [directory, *directory.rglob("*")]:
        with suppress(FileNotFoundError):
            mode = path.lstat().st_mode
            if (stat.S_ISDIR(mode) or stat.S_ISREG(mode)) and mode & 0o077:
                found.append(f"{path} {stat.S_IMODE(mode):o}")
    return found
