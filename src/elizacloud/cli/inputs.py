"""What people give on the command line, read and checked: NAME=value pairs, secrets from files, a JSON config."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from elizacloud.errors import Invalid


def named_values(pairs: Sequence[str], option: str) -> dict[str, str]:
    """`NAME=value` each; Invalid for one that is not."""
    values = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise Invalid(f"cannot read {option} {pair!r}: write it as NAME=value")
        values[name] = value
    return values


def read_secrets(pairs: Sequence[str]) -> dict[str, str]:
    """`NAME=file:/path` each. A value itself is refused: argv is seen by every process of the machine."""
    secrets = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if not name or not value.startswith("file:"):
            raise Invalid(
                "cannot take a secret from the command line: write NAME=file:/path, so that no other process sees it"
            )
        path = Path(value.removeprefix("file:"))
        try:
            secrets[name] = path.read_text().rstrip("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise Invalid(f"cannot read the secret {name} from {path}: {_why(error)}") from error
    return secrets


def read_config(path: Path) -> dict[str, Any]:
    """A JSON object from the file, or from standard input for `-`."""
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text()
        config = json.loads(text)
    except (OSError, ValueError) as error:
        raise Invalid(f"cannot read the config {path}: {_why(error)}; give a file with a JSON object") from error
    if not isinstance(config, dict):
        raise Invalid(f"cannot use the config {path}: it is not a JSON object")
    return config


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
