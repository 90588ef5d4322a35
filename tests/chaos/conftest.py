"""The chaos tests: whole clouds, so they are end-to-end tests; at the end they show what met what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.matrix import EVERY_SEAM, FAULTS, Matrix
from tests.conftest import CONTROL_SERVER, configured_headscales

SERVERS = ["devcontrol", *configured_headscales()]


@pytest.fixture(scope="module", params=SERVERS, ids=lambda server: Path(server).name)
def headscale(request: pytest.FixtureRequest) -> str:
    """The control server of a module's cloud, as `--headscale` takes it."""
    return str(request.param)


@pytest.fixture(autouse=True)
def control_server(headscale: str, record_property: Callable[[str, object], None]) -> None:
    name = Path(headscale).name
    record_property(CONTROL_SERVER, name if headscale == "devcontrol" else f"headscale {name}")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[Matrix.KEY] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(3600 if EVERY_SEAM else 180))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for server, matrix in config.stash[Matrix.KEY].items():
        terminalreporter.section(f"which step met which fault, and where, on {Path(server).name}")
        for line in matrix.lines(FAULTS):
            terminalreporter.line(line)
