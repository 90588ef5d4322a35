"""`elizacloud settings`."""

import json
from pathlib import Path

from tests.cli.conftest import Cli


def test_each_setting_has_value_and_source_and_secrets_are_masked(stranger: Cli, home: Path) -> None:
    (home / "settings.toml").write_text('port = 9000\nheadscale_api_key = "hskey-secret"\n')
    result = stranger(
        "settings", "--json", "--config", str(home / "settings.toml"), ELIZACLOUD_HOST="::1", ELIZACLOUD_PORT="9001"
    )
    shown = json.loads(result.stdout)
    assert (shown["host"]["value"], shown["host"]["source"]) == ("::1", "environment")
    assert (shown["port"]["value"], shown["port"]["source"]) == ("9001", "environment")
    assert shown["headscale_api_key"]["value"] == "********"
    assert shown["runtime"]["source"] == "default"
    assert shown["report_url"]["variable"] == "ELIZACLOUD_REPORT_URL"
    plain = stranger("settings", "--describe", "--config", str(home / "settings.toml")).stdout
    assert f"port\t9000\t{home / 'settings.toml'}\tPort of the front door" in plain
    assert "hskey-secret" not in plain


def test_a_wrong_setting_is_one_sentence(stranger: Cli) -> None:
    result = stranger("settings", ELIZACLOUD_PORT="-1")
    assert result.exit_code == 1
    assert result.stderr.startswith("elizacloud: cannot use the settings: ELIZACLOUD_PORT: ")
