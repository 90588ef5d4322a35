"""One directory for all, with a path that is short enough for unix sockets."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stub_agent import support


@pytest.fixture(scope="session", autouse=True)
def short_directory() -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as directory:
        support.root = Path(directory)
        yield
