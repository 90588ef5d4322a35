"""`up`, `serve` and `relay` are thin: they read the settings and hand over."""

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def handed_over(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What each composition root was called with."""
    calls: list[Any] = []
    for name in ("up", "serve", "relay"):
        module = SimpleNamespace(run=lambda settings, **more: calls.append((settings, more)))
        monkeypatch.setitem(sys.modules, f"elizacloud.app.{name}", module)
    monkeypatch.setattr("elizacloud.log.configure_logging", lambda **options: None)
    return calls


def test_up_takes_flags_over_the_environment_over_the_file(stranger: Cli, handed_over: list[Any], home: Path) -> None:
    (home / "x.toml").write_text('host = "::1"\nport = 1\nrelay_domain = "agents.example"\n')
    result = stranger(
        *("up", "--data-dir", str(home / "d"), "--port", "0", "--headscale", "devcontrol"),
        *("--ready-file", str(home / "ready.json"), "--config", str(home / "x.toml")),
        ELIZACLOUD_PORT="2",
        ELIZACLOUD_HOST="127.0.0.2",
    )
    assert result.exit_code == 0
    [(settings, more)] = handed_over
    assert (settings.data_dir, settings.port, settings.host) == (home / "d", 0, "127.0.0.2")
    assert (settings.headscale, settings.relay_domain) == ("devcontrol", "agents.example")
    assert (more["ready_file"], more["config"]) == (home / "ready.json", home / "x.toml")


def test_serve_and_relay(stranger: Cli, handed_over: list[Any], home: Path) -> None:
    assert stranger("serve", "--data-dir", str(home)).exit_code == 0
    assert stranger("relay", "--listen-fd", "7").exit_code == 0
    assert handed_over[0][0].data_dir == home
    assert handed_over[1][0].listen_fd == 7


def test_an_unknown_runtime_is_a_sentence(stranger: Cli, handed_over: list[Any]) -> None:
    result = stranger("up", "--runtime", "magic")
    assert (result.exit_code, handed_over) == (1, [])
    assert "runtime (from flag)" in result.stderr
