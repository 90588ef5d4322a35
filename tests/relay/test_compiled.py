"""The relay as native code: its memory is laid out soundly, and it does all that the interpreted one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / ".tools" / "compiled" / "lib"

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def library() -> Path:
    """Where the wheel of the present sources is unpacked."""
    if not (LIBRARY / "elizacloud").exists():
        pytest.skip("the relay is not compiled: run `make compiled`, with a C compiler")
    for source in (ROOT / "src").rglob("*.py"):
        copy = LIBRARY / source.relative_to(ROOT / "src")
        if not copy.exists() or copy.read_bytes() != source.read_bytes():
            pytest.skip(f"the compiled relay is older than {source.name}: run `make compiled`")
    return LIBRARY


def run_compiled(library: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(library), "PYTHONMALLOC": "debug", "PYTEST_ADDOPTS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-10_000:]
    return done.stdout


def test_no_native_class_lies_over_an_interpreted_one(library: Path) -> None:
    assert run_compiled(library, "tests.relay.compiled_classes") == ""


def test_it_passes_the_tests_of_the_relay(library: Path) -> None:
    """With memory checked at its edges, and the garbage collector at work all the time."""
    run_compiled(library, "pytest", "-p", "tests.relay.often_collected", "--ignore", __file__, "tests/relay")


def test_it_passes_the_black_box(library: Path) -> None:
    run_compiled(library, "pytest", "-p", "tests.relay.often_collected", "tests/e2e/test_relay_black_box.py")
