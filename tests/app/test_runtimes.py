"""The runtime that the settings choose."""

from __future__ import annotations

from pathlib import Path

import pytest

from elizacloud.app.data_dir import open_data_dir
from elizacloud.app.runtimes import docker_options, runtime_of
from elizacloud.errors import Misconfigured
from elizacloud.runtime.docker import PullPolicy
from elizacloud.settings import Settings


def settings_of(directory: Path, **chosen: object) -> Settings:
    return Settings(data_dir=directory, **chosen)  # type: ignore[arg-type]


async def test_processes_unless_docker_is_chosen(tmp_path: Path) -> None:
    by_default = settings_of(tmp_path)
    docker = settings_of(tmp_path, runtime="docker", headscale_join_url="https://headscale.example")

    for settings, kind in ((by_default, "process"), (docker, "docker")):
        runtime = runtime_of(settings, open_data_dir(settings))
        assert runtime.kind == kind
        await runtime.close()


@pytest.mark.parametrize(
    ("chosen", "named"),
    [
        ({"headscale_api_url": "http://127.0.0.1:8080"}, "headscale_join_url"),
        ({"headscale_join_url": "http://localhost:8080"}, "headscale_join_url"),
        ({"headscale_join_url": "https://hs.example", "report_url": "http://127.0.0.1:1"}, "report_url"),
    ],
)
def test_what_no_container_reaches_is_refused(tmp_path: Path, chosen: dict[str, str], named: str) -> None:
    settings = settings_of(tmp_path, runtime="docker", **chosen)

    with pytest.raises(Misconfigured, match=f"{named} is on loopback"):
        runtime_of(settings, open_data_dir(settings))


def test_settings_become_options(tmp_path: Path) -> None:
    options = docker_options(settings_of(tmp_path, docker_images_allowed="ghcr.io/a/*, b", docker_pull="always"))

    assert options.images_allowed == ("ghcr.io/a/*", "b")
    assert options.pull_policy is PullPolicy.ALWAYS
    assert options.memory_bytes == 1024**3
