"""The runtime that the settings choose."""

from __future__ import annotations

from pathlib import Path

import pytest

from elizacloud.app.data_dir import open_data_dir
from elizacloud.app.docker_host import address_of, prepare_docker
from elizacloud.app.runtimes import docker_options, docker_urls, runtime_of
from elizacloud.errors import Misconfigured
from elizacloud.runtime.docker import PullPolicy
from elizacloud.runtime.docker.host import DockerHost
from elizacloud.runtime.hosts import Hosts
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


async def test_each_docker_host_has_its_name(tmp_path: Path) -> None:
    url = "https://headscale.example"
    chosen = settings_of(tmp_path, runtime="docker", headscale_join_url=url, docker_hosts="big=tcp://10.0.0.5:2376")

    runtime = runtime_of(chosen, open_data_dir(chosen))

    assert isinstance(runtime, Hosts)
    assert runtime.ids == ("local", "big")
    assert runtime.isolates
    await runtime.close()


def test_one_docker_is_not_two_hosts(tmp_path: Path) -> None:
    chosen = settings_of(tmp_path, docker_url="tcp://10.0.0.5:2376", docker_hosts={"big": "tcp://10.0.0.5:2376"})

    with pytest.raises(Misconfigured, match="docker_url and big"):
        docker_urls(chosen)


async def test_up_has_agents_on_its_own_machine_alone(tmp_path: Path) -> None:
    chosen = settings_of(tmp_path, docker_hosts={"big": "tcp://10.0.0.5:2376"})

    with pytest.raises(Misconfigured, match=r"tcp://10\.0\.0\.5:2376 with `up`"):
        await prepare_docker(chosen, tmp_path / "tailscaled")


@pytest.mark.parametrize("gateway", ["127.0.0.1", None])
def test_a_rootless_docker_needs_to_be_told_where_its_containers_reach_this_machine(
    tmp_path: Path, gateway: str | None
) -> None:
    host = DockerHost("28.0.0", rootless=True, seccomp=True, limits_missing=(), gateway=gateway, sidecar_content=None)

    with pytest.raises(Misconfigured, match="docker_host_address"):
        address_of(host, settings_of(tmp_path))

    assert address_of(host, settings_of(tmp_path, docker_host_address="127.0.0.2")) == "127.0.0.2"


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
