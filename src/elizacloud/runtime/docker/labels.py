"""By what a container or volume of ours is found again: its labels. Names are derived, and only keep two of a kind apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from elizacloud.errors import RuntimeRefused
from elizacloud.model import is_agent_id
from elizacloud.runtime.protocol import Labels

INSTALLATION = "elizacloud.installation"
AGENT = "elizacloud.agent"
GENERATION = "elizacloud.generation"
RUN = "elizacloud.run"
ROLE = "elizacloud.role"

_REF = re.compile(r"(?P<agent>[a-z0-9]{16})\.(?P<generation>[1-9][0-9]{0,8})\.(?P<run>[0-9]{1,9})")

Key = tuple[str, int]
"""Agent id and generation: what has one unit at a time, and one set of volumes."""


class Role(StrEnum):
    """What a container is in its unit."""

    TAILNET = "tailnet"
    AGENT = "agent"
    WHOLE = "whole"
    """Both in one: the image has a tailscaled of its own."""


class Keeps(StrEnum):
    """What a volume keeps. The first two outlive runs."""

    NODE = "node"
    """tailscaled's state: the sidecar's alone."""
    STATE = "state"
    """The agent's own files, and what it is told."""
    TOOLS = "tools"
    """A static shell out of the sidecar's image, for the first step of the agent's container."""


def checked(labels: Labels) -> Labels:
    """Refuse labels that are no safe name."""
    if not is_agent_id(labels.agent_id) or not 0 < labels.generation < 10**9 or not 0 <= labels.run < 10**9:
        raise RuntimeRefused("cannot use these labels: the agent id, generation or run is malformed", code="bad_labels")
    return labels


def ref_of(labels: Labels) -> str:
    return f"{labels.agent_id}.{labels.generation}.{labels.run}"


def key_in(ref: str) -> Key | None:
    """The key that a ref belongs to; None when it is no ref of ours."""
    match = _REF.fullmatch(ref)
    return (match["agent"], int(match["generation"])) if match else None


def name_of(key: Key, part: Role | Keeps) -> str:
    return f"elizacloud-{key[0]}-{key[1]}-{part}"


def network_name(installation_id: str) -> str:
    return f"elizacloud-{installation_id}"


def written(labels: Labels, role: Role) -> dict[str, str]:
    return {
        **written_for_volume(labels),
        RUN: str(labels.run),
        ROLE: role,
    }


def written_for_volume(labels: Labels) -> dict[str, str]:
    return {INSTALLATION: labels.installation_id, AGENT: labels.agent_id, GENERATION: str(labels.generation)}


def read(given: Mapping[str, str] | None) -> tuple[Labels, Role] | None:
    """None when they are not whole: then the container is not ours, whatever it is called."""
    given = given or {}
    try:
        labels = Labels(given[INSTALLATION], given[AGENT], int(given[GENERATION]), int(given[RUN]))
        return labels, Role(given[ROLE])
    except (KeyError, ValueError):
        return None


def read_of_volume(given: Mapping[str, str] | None) -> Key | None:
    """None when they are not whole."""
    given = given or {}
    try:
        return given[AGENT], int(given[GENERATION])
    except (KeyError, ValueError):
        return None


def filters(**wanted: str) -> dict[str, list[str]]:
    """As the Engine API filters lists and events by label."""
    names = {"installation": INSTALLATION, "agent": AGENT, "generation": GENERATION}
    return {"label": [ROLE, *(f"{names[name]}={value}" for name, value in wanted.items())]}
