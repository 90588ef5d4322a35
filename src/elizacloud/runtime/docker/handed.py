"""What is handed over to containers, by their standard input, at each start. Pure.

First come the lines for container-init, then a shell script for the agent; a container that is both reads both. What an owner
gave at a creation waits in memory for the first start, which writes it on the volume. Secrets travel in this way and in no
other: `docker inspect` shows a container's configuration, never its volumes or its input.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

SIDECAR_UID = 41641
"""Nobody else's in any image, so that an agent that is root, without capabilities, can neither read nor signal it."""

NODE_DIRECTORY = "/var/lib/tailscale"
STATE_DIRECTORY = "/var/lib/elizacloud/agent"
TOOLS_DIRECTORY = "/usr/lib/elizacloud"
SHELL = f"{TOOLS_DIRECTORY}/busybox"

OWNERS_SECRETS = f"{STATE_DIRECTORY}/owners-secrets"
BUSY_TOKEN = f"{STATE_DIRECTORY}/busy-token"
CONFIG = f"{STATE_DIRECTORY}/agent-config.json"


def for_container_init(*, auth_key: str | None, join_token: str) -> bytes:
    """It reads these lines and writes them on no disk."""
    return f"{auth_key or ''}\n{join_token}\n".encode()


def exports(variables: Mapping[str, str]) -> bytes:
    """A shell script that sets them; any value is taken as it is."""
    return "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items()).encode()


def for_agent(*, owners: bytes, secrets: Mapping[str, str], busy_token: str) -> bytes:
    """A script for the shell that becomes the agent (configs.py, container-init). `owners` is what `of_owner` made, or empty
    when an earlier start has written it."""
    writes_token = _writes(BUSY_TOKEN, f"{busy_token}\n".encode())
    return owners + writes_token + f". {OWNERS_SECRETS}\n".encode() + exports(secrets)


def of_owner(*, config: Mapping[str, Any], secrets: Mapping[str, str], refused: Sequence[str]) -> bytes:
    """What the owner gave, as the first part of that script."""
    config_file = json.dumps(dict(config)).encode()
    return _writes(CONFIG, config_file) + _writes(OWNERS_SECRETS, exports(secrets) + says(refused))


def _writes(path: str, content: bytes) -> bytes:
    """A shell script that makes the file anew, whoever's the last one was. Beside a sidecar there may be no `rm` but ours,
    and in an image that joins by itself none of ours."""
    removes = f"{{ {SHELL} rm -f {path} 2>/dev/null || rm -f {path}; }}"
    return f"(umask 077; {removes}; printf %s {shlex.quote(content.decode())} >{path}) || exit 64\n".encode()


def says(refused: Sequence[str]) -> bytes:
    """A shell script that says so of each, as the process runtime does."""
    texts = (shlex.quote(f"[elizacloud] the variable {name} is reserved and was not set") for name in refused)
    return "".join(f"printf '%s\\n' {text} >&2\n" for text in texts).encode()
