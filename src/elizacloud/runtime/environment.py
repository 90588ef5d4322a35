"""What an agent process finds in its environment. Pure.

Nothing is inherited but PATH and LANG. The owner's variables come next, then ours, which always win; the names below
are ours alone, since with one of them an owner could leave the tailnet's rules or pose as another agent.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from elizacloud.runtime.protocol import InstanceSecrets, InstanceSpec

RESERVED_PREFIXES = ("ELIZACLOUD_", "HEADSCALE_", "TS_", "_ELIZACLOUD_")
RESERVED_SUFFIXES = ("API_TOKEN", "API_BIND", "PORT", "STATE_DIR", "CLOUD_PROVISIONED", "ALLOW_WS_QUERY_TOKEN")
RESERVED = frozenset({"CONTAINER_ID", "PORT"}) | {
    f"{brand}_{suffix}" for brand in ("MILADY", "ELIZA") for suffix in RESERVED_SUFFIXES
}


def is_reserved(name: str) -> bool:
    """True when an owner may not set this variable."""
    return name in RESERVED or name.startswith(RESERVED_PREFIXES)


@dataclass(frozen=True, slots=True)
class Listen:
    """Where the agent is to listen: a unix socket, or a port when it cannot do that."""

    socket: Path | None = None
    port: int | None = None
    bind: str = "127.0.0.1"
    """The address for the port. An agent of this family that is told of loopback alone takes no request that names its address
    on the tailnet, unless that is in its ALLOWED_HOSTS, which has no wildcard: its owner's affair, once there is an address."""

    exactly: bool = False
    """It listens where ELIZACLOUD_AGENT_LISTEN says, whatever else it is told, and leaves to us who may get there."""

    @property
    def serve_target(self) -> str:
        """How tailscaled is told to reach it."""
        return f"unix:{self.socket}" if self.socket else f"127.0.0.1:{self.port}"

    def variables(self) -> Mapping[str, str]:
        if self.socket:
            return {"ELIZACLOUD_AGENT_LISTEN": f"unix:{self.socket}"}
        if self.exactly:
            # Told of loopback, it would take no request that names its address on the tailnet.
            return {"ELIZACLOUD_AGENT_LISTEN": f"127.0.0.1:{self.port}"} | _branded("API_BIND", "0.0.0.0")
        return {"PORT": str(self.port)} | _branded("PORT", str(self.port)) | _branded("API_BIND", self.bind)


@dataclass(frozen=True, slots=True)
class Places:
    """The files and directories of a volume that an agent is told of."""

    home: Path
    state: Path
    config: Path
    join_token: Path
    busy_token: Path


def agent_environment(
    spec: InstanceSpec, secrets: InstanceSecrets, places: Places, listen: Listen, inherited: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """The agent's whole environment, and the names that its owner gave and must not."""
    base = {
        "PATH": inherited.get("PATH", os.defpath),
        "LANG": inherited.get("LANG", "C.UTF-8"),
        "HOME": str(places.home),
    }
    given = {**spec.agent.environment, **{name: value.get_secret_value() for name, value in spec.agent.secrets.items()}}
    refused = sorted(name for name in given if is_reserved(name))
    owners = {name: value for name, value in given.items() if not is_reserved(name)}
    ours = {
        "CONTAINER_ID": spec.labels.agent_id,
        "ELIZACLOUD_GENERATION": str(spec.labels.generation),
        "ELIZACLOUD_RUN": str(spec.labels.run),
        "HEADSCALE_URL": spec.join_url,
        "ELIZACLOUD_AGENT_CONFIG": str(places.config),
        "ELIZACLOUD_JOIN_TOKEN": f"file:{places.join_token}",
        "ELIZACLOUD_BUSY_TOKEN": f"file:{places.busy_token}",
        **_branded("API_TOKEN", secrets.agent_token.get_secret_value()),
        **_branded("STATE_DIR", str(places.state)),
        **_branded("CLOUD_PROVISIONED", "1"),
        **_branded("ALLOW_WS_QUERY_TOKEN", "1"),
        **listen.variables(),
    }
    if spec.report_url:
        ours["ELIZACLOUD_API_URL"] = spec.report_url
    return {**base, **owners, **ours}, refused


def _branded(suffix: str, value: str) -> dict[str, str]:
    """Both names that agents of this family know a variable by."""
    return {f"MILADY_{suffix}": value, f"ELIZA_{suffix}": value}
