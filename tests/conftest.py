"""What every test may rely on: tailscaled and devcontrol exist, and the last lines say what ran on which control server."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis.internal.conjecture import providers
from hypothesis.internal.constants_ast import Constants

from elizacloud.binaries import Binaries, show_progress
from elizacloud.settings import load_settings
from tests.docker_engine import docker_engine as docker_engine
from tests.fakes.postgresql import postgresql_server as postgresql_server
from tests.fakes.postgresql import postgresql_url as postgresql_url
from tests.rootless_docker import rootless_engine as rootless_engine
from tests.sshd import docker_sshd as docker_sshd

CONTROL_SERVER = "control_server"
"""The user property by which a test says which control server it ran on."""
DOCKER = "docker"
"""That of a test which runs on a real Docker Engine."""

ran: Counter[str] = Counter()
no_docker: set[str] = set()
"""Why tests that need one did not run."""


def pytest_configure(config: pytest.Config) -> None:
    """Find tailscaled and devcontrol, or build them once: every test of a tailnet needs both."""
    if config.option.collectonly or config.option.help:
        return
    tell_the_same_stories(config)
    with show_progress() as progress:
        binaries = Binaries.from_settings(load_settings().settings, progress)
        os.environ["ELIZACLOUD_TAILSCALED_BIN"] = str(asyncio.run(binaries.tailscaled()).path)
        os.environ["ELIZACLOUD_DEVCONTROL_BIN"] = str(asyncio.run(binaries.devcontrol()).path)


def tell_the_same_stories(config: pytest.Config) -> None:
    """Hypothesis draws from the constants of whatever modules are imported, so that a test alone would see other examples
    than the same test in a whole run, even a derandomized one."""
    patch = pytest.MonkeyPatch()
    patch.setattr(providers, "_get_local_constants", Constants)
    config.add_cleanup(patch.undo)


@pytest.fixture(autouse=True)
def logs_go_nowhere_special() -> Iterator[None]:
    """A test that configures logging, as every command does, leaves no trace in the next one."""
    yield
    structlog.reset_defaults()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if "docker_engine" in getattr(item, "fixturenames", ()):
        item.user_properties.append((DOCKER, True))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    on_docker = (DOCKER, True) in report.user_properties
    if report.when == "call" and not report.skipped:
        ran.update(str(value) for name, value in report.user_properties if name == CONTROL_SERVER)
        ran.update([DOCKER] if on_docker else [])
    elif report.skipped and on_docker and isinstance(report.longrepr, tuple):
        no_docker.add(report.longrepr[2].removeprefix("Skipped: "))


def configured_headscales() -> list[str]:
    """The real Headscales that this run was given."""
    return [path for path in os.environ.get("ELIZACLOUD_HEADSCALE_BIN", "").split(":") if path]


def idle_headscales() -> list[str]:
    """Those of them that not one case ran on."""
    return [path for path in configured_headscales() if not any(Path(path).name in name for name in ran)]


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A Headscale that was configured and ran nothing is a failure: it would look like a pass."""
    if idle_headscales() and session.exitstatus == pytest.ExitCode.OK and not session.config.option.collectonly:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("control servers and containers")
    for name, count in sorted((+ran).items()):
        terminalreporter.line(f"{name}: {count} cases")
    if not configured_headscales():
        terminalreporter.line("headscale: 0 cases (set ELIZACLOUD_HEADSCALE_BIN to run them on a real one)")
    if not ran[DOCKER]:
        terminalreporter.line(f"{DOCKER}: 0 cases ({'; '.join(sorted(no_docker)) or 'none was asked for'})")
    for path in idle_headscales():
        terminalreporter.line(f"headscale {path}: configured, and not one case ran: that is a failure", red=True)
