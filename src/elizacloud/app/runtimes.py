"""The runtime that the settings choose. To add one: its folder in runtime/, and a line here."""

from __future__ import annotations

from urllib.parse import urlsplit

from elizacloud.app.data_dir import DataDir
from elizacloud.errors import Misconfigured
from elizacloud.model import DEFAULT_HOST_ID
from elizacloud.runtime.docker import DockerOptions, DockerRuntime, PullPolicy
from elizacloud.runtime.hosts import Hosts
from elizacloud.runtime.process import ProcessRuntime
from elizacloud.settings import Settings, is_loopback


def runtime_of(settings: Settings, data: DataDir) -> ProcessRuntime | Hosts:
    """Made without I/O; its owner closes it. Raises Misconfigured for URLs that containers cannot reach."""
    if settings.runtime == "docker":
        _check_reachable("headscale_join_url", settings.headscale_join_url or settings.headscale_api_url)
        _check_reachable("report_url", settings.report_url)
        options = docker_options(settings)
        return Hosts({host_id: DockerRuntime(url, options) for host_id, url in docker_urls(settings).items()})
    return ProcessRuntime(settings.process_host_socket or data.sockets / "agents" / "host.sock")


def docker_urls(settings: Settings) -> dict[str, str]:
    """Where each Docker host is, by host id. Raises Misconfigured."""
    for name, url in settings.docker_hosts.items():
        if url == settings.docker_url:
            raise Misconfigured(
                f"cannot use {url} as two hosts: docker_url and {name} in docker_hosts both lead there; remove one"
            )
    return {DEFAULT_HOST_ID: settings.docker_url, **settings.docker_hosts}


def _check_reachable(name: str, url: str | None) -> None:
    """A container's loopback is its own."""
    if url is not None and is_loopback(urlsplit(url).hostname or ""):
        raise Misconfigured(
            f"cannot run agents on Docker: {name} is on loopback ({url}), where no container reaches it; use https, or an "
            "address of this machine on a private network"
        )


def docker_options(settings: Settings) -> DockerOptions:
    return DockerOptions(
        sidecar_image=settings.docker_sidecar_image,
        agent_image=settings.docker_agent_image,
        images_allowed=settings.docker_images_allowed,
        pull_policy=PullPolicy(settings.docker_pull),
        memory_bytes=settings.docker_memory_bytes,
        cpus=settings.docker_cpus,
        pids=settings.docker_pids,
        most_memory_bytes=settings.docker_most_memory_bytes,
        most_cpus=settings.docker_most_cpus,
        most_pids=settings.docker_most_pids,
        tailscaled_memory_limit=settings.docker_tailscaled_memory,
        embedded_images=settings.docker_embedded_images,
        firewall=settings.docker_firewall,
        stun_port=settings.docker_stun_port,
        networks_closed=settings.docker_networks_closed,
    )
