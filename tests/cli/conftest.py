"""A server with a token, and a home of its own for each test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import Result

from tests.cli.support import own_environment, run, serving
from tests.fakes.api import TOKEN, FakeApi

Cli = Callable[..., Result]


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with serving(FakeApi()) as fake:
        yield fake


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path


@pytest.fixture
def cli(api: FakeApi, home: Path) -> Cli:
    """Runs `elizacloud`, signed in to the fake API by its environment."""
    environment = own_environment(home, ELIZACLOUD_URL=api.url, ELIZACLOUD_TOKEN=TOKEN)
    return lambda *arguments, stdin=None: run(*arguments, environment=environment, stdin=stdin)


@pytest.fixture
def stranger(home: Path) -> Cli:
    """Runs `elizacloud` with no server and no token."""
    environment = own_environment(home)
    return lambda *arguments, stdin=None, **more: run(*arguments, environment=environment | more, stdin=stdin)
