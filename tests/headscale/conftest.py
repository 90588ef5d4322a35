import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.headscale.scripted import Scripted, serving


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    async with serving() as server:
        yield server


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory with a path short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as name:
        yield Path(name)
