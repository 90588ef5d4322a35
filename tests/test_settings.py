import os
from pathlib import Path

import pytest

from elizacloud.errors import Misconfigured
from elizacloud.settings import child_environment, load_settings


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


def test_docker_hosts_of_a_variable_or_a_table_of_toml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "elizacloud.toml"
    file.write_text('[docker_hosts]\nbig = "tcp://10.0.0.5:2376"\nold-1 = "ssh://me@old"\n')
    assert load_settings(file=file).settings.docker_hosts == {"big": "tcp://10.0.0.5:2376", "old-1": "ssh://me@old"}

    monkeypatch.setenv("ELIZACLOUD_DOCKER_HOSTS", "big=tcp://10.0.0.5:2376, near=unix:///run/docker.sock")
    loaded = load_settings()
    assert loaded.settings.docker_hosts == {"big": "tcp://10.0.0.5:2376", "near": "unix:///run/docker.sock"}
    assert loaded.shown()["docker_hosts"] == (
        "big=tcp://10.0.0.5:2376, near=unix:///run/docker.sock",
        "environment",
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tcp://10.0.0.5:2376", "has no name"),
        ("=tcp://10.0.0.5:2376", "'' is no name for a host"),
        ("Big=tcp://10.0.0.5:2376", "'Big' is no name for a host"),
        ("a/b=tcp://10.0.0.5:2376", "'a/b' is no name for a host"),
        (f"{'a' * 64}=tcp://10.0.0.5:2376", "is no name for a host"),
        ("local=tcp://10.0.0.5:2376", "'local' is the host that docker_url leads to"),
        ("big=10.0.0.5:2376", "'10.0.0.5:2376' \\(of big\\) is no Docker host"),
        ("big=", "'' \\(of big\\) is no Docker host"),
        ("big=tcp://", "is no Docker host"),
        ("big=unix://docker.sock", "is no Docker host"),
        ("big=tcp://a,big=tcp://b", "two hosts have the name 'big'"),
        ("big=tcp://a,small=tcp://a", "two hosts have the same URL"),
    ],
)
def test_a_wrong_docker_host_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch, text: str, said: str) -> None:
    monkeypatch.setenv("ELIZACLOUD_DOCKER_HOSTS", text)

    with pytest.raises(Misconfigured, match=f"ELIZACLOUD_DOCKER_HOSTS: .*{said}"):
        load_settings()
