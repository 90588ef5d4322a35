"""How the containers of a unit are made and confined, as the Engine API takes it. Pure.

No capability, no new privileges, the default seccomp profile, a read-only root with two tmpfs and the volumes, limits on
processes, memory and CPU, a bridge without traffic between containers, no published port, a log that is rotated.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from elizacloud.errors import RuntimeRefused
from elizacloud.model import AGENT_PORT
from elizacloud.runtime.docker.handed import (
    BUSY_TOKEN,
    CONFIG,
    NODE_DIRECTORY,
    SHELL,
    SIDECAR_UID,
    STATE_DIRECTORY,
    TOOLS_DIRECTORY,
    of_owner,
)
from elizacloud.runtime.docker.images import Image, PullPolicy
from elizacloud.runtime.docker.labels import Keeps, Key, Role, name_of, network_name, written
from elizacloud.runtime.environment import Listen, Places, agent_environment
from elizacloud.runtime.protocol import InstanceSecrets, InstanceSpec

_NOT_THE_SIDECARS = (
    f'case "$({SHELL} id -u)" in {SIDECAR_UID} | "") '
    'echo "[elizacloud] cannot run as the user of the sidecar" >&2; exit 64; esac; '
)
"""The number, which a name or another way to write it may stand for: who has it could read the sidecar's memory and files."""
WITH_SECRETS = (
    _NOT_THE_SIDECARS + f'ours=$({SHELL} cat); [ -n "$ours" ] || exit 64; eval "$ours"; unset ours; exec "$@"'
)
"""What the agent's container does first: secrets become variables inside of it, where `docker inspect` does not look. Without
ours, when nobody is left to give them, it does not run."""

GIVEN_BY_HAND = {"OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
STDIN = "stdin"
"""Where container-init is told to read what it may not find in its environment."""

TMPFS = {"/tmp": "rw,nosuid,nodev,mode=1777,size=64m", "/run": "rw,nosuid,nodev,mode=1777,size=16m"}
LOG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}

SIDECAR_MEMORY_BYTES = 256 * 1024**2
SIDECAR_PIDS = 64
MEMORY_LEAST_BYTES = 16 * 1024**2
_LIMITS = frozenset({"memoryBytes", "cpus", "pids"})
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKENS = ("MILADY_API_TOKEN", "ELIZA_API_TOKEN")
_NO_SECRETS = InstanceSecrets(None, SecretStr(""), SecretStr(""), SecretStr(""))


NETWORKS_CLOSED = ("169.254.0.0/16", "168.63.129.16/32", "192.0.0.192/32", "100.64.0.0/10")
"""Where clouds tell machines their own secrets; and the tailnet, into which a host that is on it would lead by its own name."""


@dataclass(frozen=True, slots=True)
class DockerOptions:
    """What an operator chooses for one Docker host."""

    sidecar_image: str
    agent_image: str
    """For agents whose owner names none."""
    images_allowed: tuple[str, ...] = ("*",)
    """Patterns of the images that owners may name."""
    pull_policy: PullPolicy = PullPolicy.MISSING
    memory_bytes: int = 1024**3
    cpus: float = 1.0
    pids: int = 256
    """What an agent gets unless its owner asks for less or more, and the most that an owner may ask for: `most_*`."""
    most_memory_bytes: int = 8 * 1024**3
    most_cpus: float = 4.0
    most_pids: int = 4096
    tailscaled_memory_limit: str = "64MiB"
    """GOMEMLIMIT of each tailscaled."""
    embedded_images: tuple[str, ...] = ()
    """Patterns of images that have tailscaled and container-init themselves, and run without a sidecar."""
    firewall: bool = True
    """Whether packet filters are set on the host (firewall.py)."""
    stun_port: int = 3478
    """Where the control server answers STUN, in case it is on this host."""
    networks_closed: tuple[str, ...] = NETWORKS_CLOSED
    """Where packets of agents do not go."""


@dataclass(frozen=True, slots=True)
class Limits:
    memory_bytes: int
    cpus: float
    pids: int

    def as_host_config(self) -> dict[str, Any]:
        return {
            "Memory": self.memory_bytes,
            "MemorySwap": self.memory_bytes,  # the sum of both: no swap
            "NanoCpus": int(self.cpus * 1_000_000_000),
            "PidsLimit": self.pids,
        }


def limits_of(resources: Mapping[str, Any], options: DockerOptions) -> Limits:
    """Raises RuntimeRefused `bad_resources` for a limit that is unknown, no number, or beyond what the operator allows."""
    if unknown := sorted(set(resources) - _LIMITS):
        raise _bad(f"{unknown[0][:40]!r} is not one of {', '.join(sorted(_LIMITS))}")

    def limit(name: str, default: float, least: float, most: float) -> float:
        value = resources.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise _bad(f"{name} has to be a number from {least:g} to {most:g}")
        return value

    return Limits(
        int(limit("memoryBytes", options.memory_bytes, MEMORY_LEAST_BYTES, options.most_memory_bytes)),
        limit("cpus", options.cpus, 0.01, options.most_cpus),
        int(limit("pids", options.pids, 1, options.most_pids)),
    )


def is_embedded(image: str, options: DockerOptions) -> bool:
    """True when this image joins the tailnet by itself."""
    return any(fnmatchcase(image, pattern) for pattern in options.embedded_images)


def sidecar_config(spec: InstanceSpec, image: Image, options: DockerOptions) -> dict[str, Any]:
    key = (spec.labels.agent_id, spec.labels.generation)
    environment = _for_container_init(spec, options)
    environment |= {"TS_SOCKET": "/run/tailscale/tailscaled.sock", "ELIZACLOUD_TAILSCALED_LOG": "-"}
    if spec.report_url:
        environment["ELIZACLOUD_API_URL"] = spec.report_url
    return {
        "Image": image.id,
        "User": f"{SIDECAR_UID}:{SIDECAR_UID}",
        "Hostname": spec.hostname,
        "Env": _listed(environment),
        **GIVEN_BY_HAND,
        "Labels": written(spec.labels, Role.TAILNET),
        "HostConfig": {
            **_confined(Limits(SIDECAR_MEMORY_BYTES, 1.0, SIDECAR_PIDS)),
            "NetworkMode": network_name(spec.labels.installation_id),
            "Mounts": [
                _mount(key, Keeps.NODE, NODE_DIRECTORY),
                _mount(key, Keeps.TOOLS, TOOLS_DIRECTORY),
                # Not for the sidecar's use: Docker gives a new volume the directories that its image has there.
                _mount(key, Keeps.STATE, STATE_DIRECTORY),
            ],
        },
    }


def agent_config(spec: InstanceSpec, image: Image, options: DockerOptions, *, sidecar_id: str) -> dict[str, Any]:
    """Raises RuntimeRefused for what cannot be run: `no_command`, `image_user`, `bad_resources`."""
    key = (spec.labels.agent_id, spec.labels.generation)
    if is_sidecars(image.user):
        raise RuntimeRefused(
            f"cannot run {image.name}: its user is the sidecar's own, {SIDECAR_UID}", code="image_user"
        )
    return {
        "Image": image.id,
        "Env": _listed(public_environment(spec, image)),
        **GIVEN_BY_HAND,
        "Labels": written(spec.labels, Role.AGENT),
        "Entrypoint": [SHELL, "sh", "-c", WITH_SECRETS, "sh"],
        "Cmd": list(command_of(spec, image)),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_confined(limits_of(spec.agent.resources, options)),
            "NetworkMode": f"container:{sidecar_id}",
            "PidMode": f"container:{sidecar_id}",
            "Mounts": [
                _mount(key, Keeps.STATE, STATE_DIRECTORY),
                _mount(key, Keeps.TOOLS, TOOLS_DIRECTORY) | {"ReadOnly": True},
            ],
        },
    }


def is_sidecars(user: str) -> bool:
    """Whether an image's USER is the sidecar's by number; what a name stands for, only the container knows."""
    number = user.partition(":")[0].lstrip("+")
    return number.isdecimal() and int(number) == SIDECAR_UID


def whole_config(spec: InstanceSpec, image: Image, options: DockerOptions) -> dict[str, Any]:
    """A container that is agent and tailnet at once. Raises RuntimeRefused `no_container_init`, `no_command`, `bad_resources`."""
    if not any(part.endswith("container-init") for part in image.entrypoint):
        raise RuntimeRefused(
            f"cannot run {image.name} without a sidecar: its entrypoint is not container-init; make such an image with "
            "`elizacloud image wrap`",
            code="no_container_init",
        )
    key = (spec.labels.agent_id, spec.labels.generation)
    command = command_of(spec, replace(image, entrypoint=()))
    return {
        "Image": image.id,
        "Hostname": spec.hostname,
        "Env": _listed(
            public_environment(spec, image) | _for_container_init(spec, options) | {"ELIZACLOUD_AGENT_SECRETS": STDIN}
        ),
        **GIVEN_BY_HAND,
        "Labels": written(spec.labels, Role.WHOLE),
        "Cmd": list(command),
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_confined(limits_of(spec.agent.resources, options)),
            "NetworkMode": network_name(spec.labels.installation_id),
            "Mounts": [_mount(key, Keeps.NODE, NODE_DIRECTORY), _mount(key, Keeps.STATE, STATE_DIRECTORY)],
        },
    }


def _for_container_init(spec: InstanceSpec, options: DockerOptions) -> dict[str, str]:
    return {
        "HEADSCALE_URL": spec.join_url,
        "HEADSCALE_AUTH_KEY": STDIN,
        "CONTAINER_ID": spec.labels.agent_id,
        "TS_HOSTNAME": spec.hostname,
        "TS_STATE_DIR": NODE_DIRECTORY,
        # runc gives a tmpfs the mode of what it is mounted on: of all images' directories /tmp alone is anybody's.
        "TS_SOCKET": "/tmp/tailscale/tailscaled.sock",
        "ELIZACLOUD_JOIN_TOKEN": STDIN,
        "ELIZACLOUD_AGENT_PORT": str(spec.agent.port or AGENT_PORT),
        "ELIZACLOUD_GOMEMLIMIT": options.tailscaled_memory_limit,
    }


def command_of(spec: InstanceSpec, image: Image) -> tuple[str, ...]:
    """The owner's command, else the image's own. Raises RuntimeRefused when there is neither."""
    command = spec.agent.command or (*image.entrypoint, *image.command)
    if not command:
        raise RuntimeRefused(
            f"cannot run {image.name}: it has no command of its own; give the agent one", code="no_command"
        )
    return command


def public_environment(spec: InstanceSpec, image: Image) -> dict[str, str]:
    """What `docker inspect` may show: everything but the owner's secrets and our tokens.

    The join token is the sidecar's alone.
    """
    hidden = {*spec.agent.secrets, *_TOKENS, "ELIZACLOUD_JOIN_TOKEN"}
    return {name: value for name, value in _environment(spec, _NO_SECRETS, image).items() if name not in hidden}


def owners_secrets(spec: InstanceSpec) -> dict[str, str]:
    """The owner's secret variables, without names that are ours."""
    image = Image("", "")
    allowed = _environment(spec, _NO_SECRETS, image)
    values = {name: secret.get_secret_value() for name, secret in spec.agent.secrets.items()}
    for name in values:
        if _VARIABLE.fullmatch(name) is None:
            raise RuntimeRefused("cannot set a secret: its name is no name of a shell's variable", code="bad_secret")
    return {name: value for name, value in values.items() if allowed.get(name) == value}


def refused_variables(spec: InstanceSpec) -> list[str]:
    """Names that the owner gave and that are ours."""
    return _with_refused(spec, _NO_SECRETS, Image("", ""))[1]


def given_by_owner(spec: InstanceSpec) -> bytes:
    """The script that writes it. Raises RuntimeRefused as `owners_secrets` does."""
    return of_owner(config=spec.agent.config, secrets=owners_secrets(spec), refused=refused_variables(spec))


def our_secrets(secrets: InstanceSecrets) -> dict[str, str]:
    return dict.fromkeys(_TOKENS, secrets.agent_token.get_secret_value())


def places() -> Places:
    state = Path(STATE_DIRECTORY)
    return Places(
        home=state / "home",
        state=state / "state",
        config=Path(CONFIG),
        join_token=Path(os.devnull),  # container-init alone is given it
        busy_token=Path(BUSY_TOKEN),
    )


def _environment(spec: InstanceSpec, secrets: InstanceSecrets, image: Image) -> dict[str, str]:
    return _with_refused(spec, secrets, image)[0]


def _with_refused(spec: InstanceSpec, secrets: InstanceSecrets, image: Image) -> tuple[dict[str, str], list[str]]:
    # All addresses of its own network namespace, of which the bridge's is closed by the host's packet filters.
    listen = Listen(port=spec.agent.port or AGENT_PORT, bind="0.0.0.0")
    return agent_environment(spec, secrets, places(), listen, image.environment)


def _confined(limits: Limits) -> dict[str, Any]:
    return {
        **limits.as_host_config(),
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges"],
        "ReadonlyRootfs": True,
        "Tmpfs": TMPFS,
        "LogConfig": LOG,
        "RestartPolicy": {"Name": "no"},
    }


def _mount(key: Key, keeps: Keeps, target: str) -> dict[str, Any]:
    return {"Type": "volume", "Source": name_of(key, keeps), "Target": target}


def _listed(environment: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in environment.items()]


def _bad(why: str) -> RuntimeRefused:
    return RuntimeRefused(f"cannot limit the agent: {why}", code="bad_resources")
