"""What is handed over to containers: by their standard input at a start, else by files on their volumes. Pure.

Files go as the tar archives that Docker takes into a created container. It spends a tenth of a second of CPU on each, so that
only images that join by themselves get any. What is given at a creation waits in memory for the first start. Secrets travel in
these ways and in no other: `docker inspect` shows a container's configuration, never its volumes or its input.
"""

from __future__ import annotations

import io
import json
import shlex
import tarfile
from collections.abc import Mapping, Sequence
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


def for_node(*, auth_key: str | None, join_token: str) -> list[Entry]:
    """For container-init in an image of any user, at each start. Without a key an empty file takes the place of one left."""
    return [
        Entry(AUTH_KEY, f"{auth_key}\n".encode() if auth_key else b"", 0o644),
        Entry(JOIN_TOKEN, f"{join_token}\n".encode(), 0o644),
    ]


def for_sidecar(*, auth_key: str | None, join_token: str) -> bytes:
    """The same for a sidecar, which reads it from its standard input and writes it on no disk."""
    return f"{auth_key or ''}\n{join_token}\n".encode()


def at_creation(*, config: Mapping[str, Any], secrets: Mapping[str, str], refused: Sequence[str]) -> list[Entry]:
    """For an agent that joins by itself, when it is created. Its log will say which variables its owner may not set."""
    return [
        Entry(STATE_DIRECTORY, None, 0o755),
        *(Entry(f"{STATE_DIRECTORY}/{name}", None, 0o777) for name in ("home", "state")),
        Entry(CONFIG, json.dumps(dict(config)).encode(), 0o644),
        Entry(OWNERS_SECRETS, exports(secrets) + says(refused), 0o644),
    ]


def at_start(*, secrets: Mapping[str, str], busy_token: str) -> list[Entry]:
    """For an agent that joins by itself, when it is started."""
    return [
        Entry(OUR_SECRETS, exports(secrets), 0o644),
        Entry(BUSY_TOKEN, f"{busy_token}\n".encode(), 0o644),
    ]


def exports(variables: Mapping[str, str]) -> bytes:
    """A shell script that sets them; any value is taken as it is."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()).encode()


def for_agent(*, owners: bytes, secrets: Mapping[str, str], busy_token: str) -> bytes:
    """The same beside a sidecar: a script for the standard input of the agent's shell (configs.py). `owners` is what
    `of_owner` made, or empty when an earlier start has written it."""
    writes_token = _writes(BUSY_TOKEN, f"{busy_token}\n".encode())
    return owners + writes_token + f". {OWNERS_SECRETS}\n".encode() + exports(secrets)


def of_owner(*, config: Mapping[str, Any], secrets: Mapping[str, str], refused: Sequence[str]) -> bytes:
    """What the owner gave, as the first part of that script."""
    config_file = json.dumps(dict(config)).encode()
    return _writes(CONFIG, config_file) + _writes(OWNERS_SECRETS, exports(secrets) + says(refused))


def _writes(path: str, content: bytes) -> bytes:
    """A shell script that makes the file anew, whoever's the last one was."""
    return f"(umask 077; {SHELL} rm -f {path}; printf %s {shlex.quote(content.decode())} >{path}) || exit 64\n".encode()


def says(refused: Sequence[str]) -> bytes:
    """A shell script that says so of each, as the process runtime does."""
    texts = (shlex.quote(f"[elizacloud] the variable {name} is reserved and was not set") for name in refused)
    return "".join(f"printf '%s\\n' {text} >&2\n" for text in texts).encode()


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
