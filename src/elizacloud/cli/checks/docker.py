"""Each Docker host, where agents run on some: it answers, can confine agents, and has the sidecar's image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from elizacloud.cli.checks.check import Check, fail, ok, warn
from elizacloud.cli.checks.facts import Facts
from elizacloud.errors import Error
from elizacloud.headscale.preflight import Finding
from elizacloud.runtime.docker.host import DockerHost, look_at

DOCKER = "docker"
SIDECAR = "sidecar's image"


def docker_checks(facts: Facts) -> list[Check]:
    settings = facts.settings
    if settings.runtime != "docker":
        return []

    async def docker(url: str) -> Sequence[Finding]:
        try:
            host = await look_at(url, settings.docker_sidecar_image)
        except Error as error:
            fix = "start Docker, let this user use its socket, or set ELIZACLOUD_DOCKER_URL to where it listens"
            return [fail(DOCKER, str(error), fix)]
        return [engine_finding(host, url), sidecar_finding(host, settings.docker_sidecar_image, url)]

    return [Check(DOCKER, partial(docker, url)) for url in (settings.docker_url, *settings.docker_hosts.values())]


def engine_finding(host: DockerHost, url: str) -> Finding:
    """Whether it can keep an agent within its bounds."""
    cause = f"Docker {host.version} at {url}{', rootless' if host.rootless else ''}"
    if not host.seccomp:
        return fail(
            DOCKER, f"{cause} filters no system calls", "run Docker on a kernel with seccomp, with its own profile"
        )
    if host.limits_missing:
        missing = ", ".join(host.limits_missing)
        return fail(
            DOCKER, f"{cause} cannot limit {missing}", "use cgroups v2, delegated to Docker's user if it is rootless"
        )
    return ok(DOCKER, cause)


def sidecar_finding(host: DockerHost, image: str, url: str) -> Finding:
    if host.sidecar_content is None:
        return warn(
            SIDECAR,
            f"{image} is not on Docker at {url}",
            f"`elizacloud up` builds it, or `elizacloud image sidecar` with ELIZACLOUD_DOCKER_URL={url}",
        )
    return ok(SIDECAR, f"{image} is on Docker at {url}")
