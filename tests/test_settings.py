import os
from pathlib import Path

import pytest

from elizacloud.settings import child_environment


@pytest.fixture(autouse=True)
def _no_variables_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ELIZACLOUD_")]:
        monkeypatch.delenv(name)


def test_a_child_gets_settings_and_nobodys_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELIZACLOUD_TOKEN", "a person's")
    monkeypatch.setenv("ELIZACLOUD_OPERATOR_TOKEN", "an operator's")
    monkeypatch.setenv("ELIZACLOUD_DRAIN_SECONDS", "3")
    monkeypatch.setenv("ELIZACLOUD_CONFIG", "/etc/elizacloud.toml")
    given = child_environment({"port": "1"})
    ours = {name: value for name, value in given.items() if name.startswith("ELIZACLOUD_")}
    assert ours == {
        "ELIZACLOUD_OPERATOR_TOKEN": "an operator's",
        "ELIZACLOUD_DRAIN_SECONDS": "3",
        "ELIZACLOUD_CONFIG": "/etc/elizacloud.toml",
        "ELIZACLOUD_PORT": "1",
    }


def test_a_child_does_not_get_what_it_must_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ELIZACLOUD_OPERATOR_TOKEN", "an operator's")
    given = child_environment(
        {"headscale_api_key": "a key", "port": "1"}, without=("operator_token", "headscale_api_key")
    )
    assert [name for name in given if name.startswith("ELIZACLOUD_")] == ["ELIZACLOUD_PORT"]


def test_without_settings_no_variable_of_ours_is_passed_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ELIZACLOUD_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("LANG", "C.UTF-8")
    given = child_environment()
    assert given["LANG"] == "C.UTF-8"
    assert not [name for name in given if name.startswith("ELIZACLOUD_")]
