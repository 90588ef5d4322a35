"""A Docker host seen before any agent runs on it: what it is, whether it can confine agents, where it is reached from inside."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from elizacloud.errors import NotFound
from elizacloud.runtime.docker.engine import Engine

CONTENT = "elizacloud.content"
"""Label of an image that we built: of what."""
_LIMITS = {"MemoryLimit": "memory", "CpuCfsQuota": "CPU", "PidsLimit": "processes"}


@dataclass(frozen=True, slots=True)
class DockerHost:
    version: str
    rootless: bool
    seccomp: bool
    limits_missing: tuple[str, ...]
    """What its kernel, or its user, cannot limit."""
    gateway: str | None
    """An address of the host that containers reach; None when it has no default bridge."""
    sidecar_content: str | None
    """Of what the sidecar's image was built; empty when it was not built by us, None when there is none."""


async def look_at(url: str, sidecar_image: str) -> DockerHost:
    """Raises RuntimeUnavailable and RuntimeRefused."""
    engine = Engine(url)
    try:
        async with engine.asked("look at the Docker host") as docker:
            info = await docker.system.info()
        return host_of(info, await _bridge(engine), await _image(engine, sidecar_image))
    finally:
        await engine.close()


def host_of(info: Mapping[str, Any], bridge: Mapping[str, Any] | None, sidecar: Mapping[str, Any] | None) -> DockerHost:
    """From the Engine API's answers."""
    options = [str(option) for option in info.get("SecurityOptions") or ()]
    labels = ((sidecar or {}).get("Config") or {}).get("Labels") or {}
    return DockerHost(
        version=str(info.get("ServerVersion", "")),
        rootless=is_rootless(info),
        seccomp=any(option.startswith("name=seccomp") and "unconfined" not in option for option in options),
        limits_missing=tuple(what for name, what in _LIMITS.items() if not info.get(name)),
        gateway=gateway_of(bridge) if bridge is not None else None,
        sidecar_content=None if sidecar is None else labels.get(CONTENT, ""),
    )


def is_rootless(info: Mapping[str, Any]) -> bool:
    return "name=rootless" in (info.get("SecurityOptions") or ())


def gateway_of(network: Mapping[str, Any]) -> str | None:
    """The host's own address on a bridge. Docker does not say it of a default bridge that it has just made."""
    for config in (network.get("IPAM") or {}).get("Config") or ():
        if config.get("Gateway"):
            return str(config["Gateway"])
        if config.get("Subnet"):
            return str(ipaddress.ip_network(config["Subnet"])[1])
    return None


async def _bridge(engine: Engine) -> Mapping[str, Any] | None:
    try:
        async with engine.asked("look at Docker's bridge") as docker:
            return await (await docker.networks.get("bridge")).show()
    except NotFound:
        return None


async def _image(engine: Engine, name: str) -> Mapping[str, Any] | None:
    try:
        async with engine.asked(f"look at the image {name}") as docker:
            return await docker.images.inspect(name)
    except NotFound:
        return None
