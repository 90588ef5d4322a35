"""What the tailnet's tests share: a short directory for sockets, and a LocalAPI that a test scripts."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from elizacloud.tailnet import LocalApi
from tests.tailnet.local_api import FakeLocalApi, serving


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A unix socket's path has at most 107 bytes, which pytest's own directories may pass."""
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as directory:
        yield Path(directory)


@pytest.fixture
async def fake(short_dir: Path) -> AsyncIterator[FakeLocalApi]:
    made = FakeLocalApi()
    async with serving(made, short_dir / "t.sock"):
        yield made


@pytest.fixture
async def api(fake: FakeLocalApi, short_dir: Path) -> AsyncIterator[LocalApi]:
    made = LocalApi(short_dir / "t.sock")
    yield made
    await made.close()
