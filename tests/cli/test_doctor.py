"""`elizacloud doctor`, before and after `up`."""

import json
import os
from pathlib import Path

from tests.cli.conftest import Cli
from tests.fakes.api import FakeApi


def test_before_the_first_start_nothing_is_broken(stranger: Cli, home: Path) -> None:
    result = stranger(
        "doctor", "--json", ELIZACLOUD_PORT="0", ELIZACLOUD_URL="http://127.0.0.1:1", PATH="/usr/bin:/bin"
    )
    report = json.loads(result.stdout)
    assert (result.exit_code, report["ok"]) == (0, True)
    verdicts = {found["check"]: found["verdict"] for found in report["findings"]}
    assert verdicts == {
        "settings": "ok",
        "tailscaled": "warn",
        "data dir": "ok",
        "port": "ok",
        "headscale": "warn",
        "control plane": "warn",
        "token": "warn",
    }
    assert all(found["fix"] for found in report["findings"] if found["verdict"] != "ok")
    assert not (home / "data").exists()  # looking changes nothing


def test_a_failure_is_exit_code_1_and_a_line_with_cause_and_fix(cli: Cli, api: FakeApi, home: Path) -> None:
    data = home / "cloud"
    data.mkdir(mode=0o700)
    (data / "run.json").write_text(
        json.dumps(
            {
                "url": api.url,
                "pid": os.getpid(),
                "headscale": {"url": "http://127.0.0.1:1", "kind": "devcontrol", "version": "0.29.2"},
                "sockets": {"tailscaled": str(data / "none.sock")},
            }
        )
    )
    agent_id = api.add("ready")
    result = cli("doctor", "--data-dir", str(data))
    assert result.exit_code == 1
    rows = {line.split("\t")[1]: line.split("\t") for line in result.stdout.splitlines()}
    assert rows["headscale API key"][0] == "fail"
    assert rows["relay on the tailnet"][0] == "fail"
    assert rows["control plane"][0] == "ok"
    assert rows[f"agent {agent_id}"][0] == "ok"
    assert all(len(row) == 4 for row in rows.values())


def test_settings_that_cannot_be_used_are_a_finding(stranger: Cli, home: Path) -> None:
    result = stranger("doctor", "--json", ELIZACLOUD_PORT="many")
    [finding] = json.loads(result.stdout)["findings"]
    assert (result.exit_code, finding["check"], finding["verdict"]) == (1, "settings", "fail")
    assert "ELIZACLOUD_PORT" in finding["cause"]
