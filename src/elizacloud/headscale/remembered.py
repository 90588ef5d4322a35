"""What a server directory was made with: kind, version, port. Kept for good, since its nodes depend on all three.

Headscale migrates its database on the first start of a newer minor, one minor at a time and never back
(hscontrol/db/versioncheck.go, v0.29.2), and a node of one kind of server is unknown to another: so the check comes
before the start. Agents keep the URL that they joined at, so the port stays.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from elizacloud.errors import Misconfigured
from elizacloud.headscale.dialects import DIALECTS, SUPPORTED, Level, level_of_text

FILE_NAME = "server.json"
_FORMAT = 1


class Kind(StrEnum):
    HEADSCALE = "headscale"
    DEVCONTROL = "devcontrol"


@dataclass(frozen=True, slots=True)
class Binary:
    """A control server that can be run; `version` is what it says of itself."""

    kind: Kind
    path: Path
    version: str


@dataclass(frozen=True, slots=True)
class Remembered:
    """`level` is None until the server has once been probed."""

    kind: Kind
    version: str
    level: Level | None
    port: int
    stun_port: int
    metrics_port: int


def check_change(remembered: Remembered, binary: Binary) -> None:
    """Raise Misconfigured when this binary must not run on what the remembered one has made."""
    if binary.kind is not remembered.kind:
        raise Misconfigured(
            f"cannot run {binary.kind} on a data directory that was made with {remembered.kind}: its nodes would be lost;"
            f" use {remembered.kind} again, or another data directory",
            code="headscale_kind_changed",
        )
    level = level_of_text(binary.version)
    if binary.kind is Kind.DEVCONTROL or level is None:
        return
    if level not in DIALECTS:
        raise Misconfigured(
            f"cannot run Headscale {binary.version}: supported are {SUPPORTED}; use one of these",
            code="headscale_version",
        )
    before = remembered.level
    if before is None or level == before or level == (before[0], before[1] + 1):
        return
    made_with = f"{before[0]}.{before[1]}"
    if level < before:
        why, fix = "its database has no way back", f"use Headscale {made_with} or newer"
    else:
        why, fix = "it upgrades one minor version at a time", f"run {before[0]}.{before[1] + 1} once before"
    raise Misconfigured(
        f"cannot run Headscale {binary.version} on a data directory that {made_with} was last run on: {why}; {fix}",
        code="headscale_version_changed",
    )


def load(directory: Path) -> Remembered | None:
    """None before the first start. Raises Misconfigured when the file is damaged or from a newer release of ours."""
    path = directory / FILE_NAME
    try:
        return _parse(json.loads(path.read_text()), path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Misconfigured(
            f"cannot read {path}: {error}; restore it from a backup, or use another data directory"
        ) from error


def save(directory: Path, remembered: Remembered) -> None:
    content = {
        "format": _FORMAT,
        "kind": remembered.kind.value,
        "version": remembered.version,
        "level": remembered.level,
        "port": remembered.port,
        "stunPort": remembered.stun_port,
        "metricsPort": remembered.metrics_port,
    }
    write_private(directory / FILE_NAME, json.dumps(content, indent=2) + "\n")


def write_private(path: Path, text: str) -> None:
    """Replace a file, mode 0600, whole or not at all, also through a crash."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _parse(content: Any, path: Path) -> Remembered:
    if content["format"] > _FORMAT:
        raise Misconfigured(f"cannot use {path}: it is from a newer elizacloud; use that version")
    level = content["level"]
    return Remembered(
        kind=Kind(content["kind"]),
        version=str(content["version"]),
        level=(int(level[0]), int(level[1])) if level else None,
        port=int(content["port"]),
        stun_port=int(content["stunPort"]),
        metrics_port=int(content["metricsPort"]),
    )
