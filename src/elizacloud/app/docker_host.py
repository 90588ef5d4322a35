"""`up` with Docker on this machine: an address that containers and we both reach, the sidecar's image, and the agents' end."""

from __future__ import annotations

import shutil
import socket
from pathlib import Path

import structlog

from elizacloud.app.runtimes import docker_options, docker_urls
from elizacloud.beside import beside
from elizacloud.errors import Error, Misconfigured
from elizacloud.runtime.docker import DockerRuntime
from elizacloud.runtime.docker.building import build_sidecar, content_of_sidecar
from elizacloud.runtime.docker.host import DockerHost, look_at
from elizacloud.settings import Settings

STOP_GRACE_SECONDS = 5.0

log = structlog.get_logger()


async def prepare_docker(settings: Settings, tailscaled: Path) -> str:
    """Build the sidecar's image unless it is there and of what we have; the address to listen on for containers.

    Raises Misconfigured where `up` cannot run agents on this Docker, and the Engine's errors.
    """
    if settings.docker_hosts or not settings.docker_url.startswith("unix://"):
        raise Misconfigured(
            f"cannot run agents on {', '.join(docker_urls(settings).values())} with `up`: its control server and relay are on "
            "this machine; use `elizacloud serve` and `elizacloud relay` with a Headscale that Docker's containers reach"
        )
    host = await look_at(settings.docker_url, settings.docker_sidecar_image)
    address = address_of(host, settings)
    await _ensure_sidecar(host, settings, tailscaled)
    return address


def address_of(host: DockerHost, settings: Settings) -> str:
    """Of this machine, as its containers reach it: on Docker's own bridge, unless it is said which."""
    advice = "use `elizacloud serve` and `elizacloud relay` with a Headscale of your own"
    if settings.docker_host_address is not None:
        address = str(settings.docker_host_address)
    elif host.rootless:
        raise Misconfigured(
            f"cannot run agents on {settings.docker_url} with `up`: a rootless Docker has its bridge in a network of its own, "
            "which this machine is not on; set docker_host_address to another address of this machine "
            f"(`ip address add 10.77.0.1/32 dev lo` gives it one that nobody else reaches), or {advice}"
        )
    elif host.gateway is None:
        raise Misconfigured(f"cannot run agents on {settings.docker_url} with `up`: it has no default bridge; {advice}")
    else:
        address = host.gateway
    try:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on {address}, where containers would reach the control server: {error.strerror or error}; {advice}"
        ) from error
    return address


async def _ensure_sidecar(host: DockerHost, settings: Settings, tailscaled: Path) -> None:
    found = shutil.which("busybox")
    if found is None:
        if host.sidecar_content is not None:
            return
        raise Misconfigured(
            "cannot build the sidecar's image without a static busybox: install busybox-static, or build the image with "
            "`elizacloud image sidecar --busybox`"
        )
    busybox = Path(found)
    # An image that somebody else built under this name is theirs to renew.
    if host.sidecar_content == "" or host.sidecar_content == content_of_sidecar(busybox=busybox, tailscaled=tailscaled):
        return
    log.info("building the sidecar's image", image=settings.docker_sidecar_image)
    await build_sidecar(settings.docker_url, settings.docker_sidecar_image, busybox=busybox, tailscaled=tailscaled)


async def stop_agents(settings: Settings, installation_id: str) -> None:
    """End this installation's containers, in good order, as whoever ends `up` wants no agent to go on. They are kept."""
    runtime = DockerRuntime(settings.docker_url, docker_options(settings))
    try:
        found = await runtime.list(installation_id)
        log.info("stopping agents", agents=len(found))
        await beside(*(runtime.stop(instance.ref, grace_seconds=STOP_GRACE_SECONDS) for instance in found))
    except Error as error:
        log.warning("agents go on, since they could not be stopped", reason=str(error))
    finally:
        await runtime.close()
