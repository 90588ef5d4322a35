"""The chaos tests: whole clouds, so they are end-to-end tests; at the end they show what met what."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.matrix import EVERY_SEAM, FAULTS, Matrix


def pytest_configure(config: pytest.Config) -> None:
    config.stash[Matrix.KEY] = Matrix()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(3600 if EVERY_SEAM else 180))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    matrix = config.stash[Matrix.KEY]
    if matrix.hits:
        terminalreporter.section("which step met which fault, and where")
        for line in matrix.lines(FAULTS):
            terminalreporter.line(line)
