"""What runs here, as the run file says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from elizacloud.cli.checks.facts import Facts, read_run_file
from elizacloud.cli.context import Context
from elizacloud.errors import Misconfigured
from elizacloud.settings import Settings


def run_file(directory: Path, **changes: object) -> Path:
    content = {
        "url": "http://127.0.0.1:1",
        "pid": os.getpid(),
        "headscale": {"url": "http://127.0.0.1:2", "kind": "devcontrol", "version": "0.29.2"},
        "sockets": {"tailscaled": "/run/tailscaled.sock"},
    }
    path = directory / "run.json"
    path.write_text(json.dumps(content | changes))
    return path


def test_a_run_file_is_read(tmp_path: Path) -> None:
    running = read_run_file(run_file(tmp_path))
    assert running is not None
    assert (running.headscale_url, running.sockets["tailscaled"]) == (
        "http://127.0.0.1:2",
        Path("/run/tailscaled.sock"),
    )


def test_that_of_a_killed_up_says_that_nothing_runs(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert read_run_file(run_file(tmp_path, pid=ended.pid)) is None
    assert read_run_file(tmp_path / "none.json") is None


@pytest.mark.parametrize("content", ["", "[]", '{"url": 1}', '{"url":"u","pid":"x","headscale":{}}'])
def test_a_damaged_one_is_a_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(Misconfigured, match="delete it if"):
        read_run_file(tmp_path / "run.json")


def test_the_key_is_the_setting_or_the_one_that_up_made(tmp_path: Path) -> None:
    context = Context("http://x", None, "nowhere")
    facts = Facts(Settings(data_dir=tmp_path), None, context)
    assert facts.headscale_key is None
    (tmp_path / "control-server").mkdir()
    (tmp_path / "control-server" / "api.key").write_text("made\n")
    made = facts.headscale_key
    assert made is not None
    assert made.get_secret_value() == "made"
    given = Facts(Settings(data_dir=tmp_path, headscale_api_key="given"), None, context).headscale_key
    assert given is not None
    assert given.get_secret_value() == "given"
