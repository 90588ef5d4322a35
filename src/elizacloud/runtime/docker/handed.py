"""The files that are handed over on the volumes, as the tar archives that Docker takes into a created container. Pure.

Secrets travel so and in no other way: `docker inspect` shows a container's configuration, never its volumes.
"""

from __future__ import annotations

import io
import json
import shlex
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

SIDECAR_UID = 41641
"""Nobody else's in any image, so that an agent that is root, without capabilities, can neither read nor signal it."""

NODE_DIRECTORY = "/var/lib/tailscale"
STATE_DIRECTORY = "/var/lib/elizacloud/agent"
TOOLS_DIRECTORY = "/usr/lib/elizacloud"
SHELL = f"{TOOLS_DIRECTORY}/busybox"

AUTH_KEY = f"{NODE_DIRECTORY}/auth-key"
JOIN_TOKEN = f"{NODE_DIRECTORY}/join-token"
OWNERS_SECRETS = f"{STATE_DIRECTORY}/owners-secrets"
OUR_SECRETS = f"{STATE_DIRECTORY}/our-secrets"
BUSY_TOKEN = f"{STATE_DIRECTORY}/busy-token"
CONFIG = f"{STATE_DIRECTORY}/agent-config.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, or a directory when it has no content. Modes are wide where an image's own user is not known to us: only
    that agent's container has the volume."""

    path: str
    content: bytes | None
    mode: int
    uid: int = 0


def for_sidecar(*, auth_key: str | None, join_token: str) -> list[Entry]:
    """At each start. Without a key an empty file takes the place of one that was left."""
    return [
        Entry(NODE_DIRECTORY, None, 0o700, SIDECAR_UID),
        Entry(AUTH_KEY, f"{auth_key}\n".encode() if auth_key else b"", 0o600, SIDECAR_UID),
        Entry(JOIN_TOKEN, f"{join_token}\n".encode(), 0o600, SIDECAR_UID),
    ]


def at_creation(*, config: Mapping[str, Any], secrets: Mapping[str, str]) -> list[Entry]:
    """For the agent, when it is created."""
    return [
        Entry(STATE_DIRECTORY, None, 0o755),
        *(Entry(f"{STATE_DIRECTORY}/{name}", None, 0o777) for name in ("home", "state")),
        Entry(CONFIG, json.dumps(dict(config)).encode(), 0o644),
        Entry(OWNERS_SECRETS, exports(secrets), 0o644),
    ]


def at_start(*, secrets: Mapping[str, str], busy_token: str) -> list[Entry]:
    """For the agent, when it is started."""
    return [
        Entry(OUR_SECRETS, exports(secrets), 0o644),
        Entry(BUSY_TOKEN, f"{busy_token}\n".encode(), 0o644),
    ]


def exports(variables: Mapping[str, str]) -> bytes:
    """A shell script that sets them; any value is taken as it is."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()).encode()


def archive(entries: list[Entry], *, below: str) -> bytes:
    """A tar archive to be unpacked at `below`."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for entry in entries:
            info = tarfile.TarInfo("." + entry.path.removeprefix(below))
            info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.uid
            if entry.content is None:
                info.type = tarfile.DIRTYPE
                tar.addfile(info)
            else:
                info.size = len(entry.content)
                tar.addfile(info, io.BytesIO(entry.content))
    return buffer.getvalue()
