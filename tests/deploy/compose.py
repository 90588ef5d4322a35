"""deploy/compose.yaml as Compose reads it: variables replaced, services with their commands, environments and mounts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE_FILE = DEPLOY / "compose.yaml"
ONE_SHOT = ("prepare", "sidecar-image", "join-relay")
"""Services that end after a moment."""

EXAMPLE = {
    "HEADSCALE_HOST": "headscale.example.com",
    "CLOUD_HOST": "cloud.example.com",
    "AGENTS_DOMAIN": "agents.example.net",
    "TLS": "ops@example.com",
    "AGENTS_TLS": "internal",
    "AGENT_IMAGE": "registry.example.com/agent:1",
    "IMAGES_ALLOWED": "registry.example.com/*",
    "DOCKER_GROUP": "998",
}
_VARIABLE = re.compile(r"\$\{(?P<name>[A-Z_]+)(?::(?P<kind>[-?])(?P<rest>[^}]*))?\}")


@dataclass(frozen=True, slots=True)
class Service:
    name: str
    facts: Mapping[str, Any]

    @property
    def argv(self) -> list[str]:
        """What its container executes."""
        return [*self.facts.get("entrypoint", ()), *self.facts["command"]]

    @property
    def environment(self) -> dict[str, str]:
        return {name: str(value) for name, value in self.facts.get("environment", {}).items()}

    @property
    def mounts(self) -> dict[str, str]:
        """By target: a path beside compose.yaml, one of the host, or a volume's name."""
        return {parts[1]: parts[0] for parts in (text.split(":") for text in self.facts.get("volumes", ()))}

    @property
    def health_check(self) -> list[str]:
        kind, *argv = self.facts["healthcheck"]["test"]
        assert kind == "CMD"
        return list(map(str, argv))


@dataclass(frozen=True, slots=True)
class Compose:
    document: Mapping[str, Any]

    @property
    def services(self) -> dict[str, Service]:
        return {name: Service(name, facts) for name, facts in self.document["services"].items()}


def load(variables: Mapping[str, str]) -> Compose:
    """Raises KeyError for a variable that has to be set and is not."""

    def value(match: re.Match[str]) -> str:
        found = variables.get(match["name"], "")
        if not found and match["kind"] != "-":
            raise KeyError(match["name"])
        return found or match["rest"]

    def replaced(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: replaced(inner) for key, inner in part.items()}
        if isinstance(part, list):
            return [replaced(inner) for inner in part]
        return _VARIABLE.sub(value, part) if isinstance(part, str) else part

    return Compose(replaced(yaml.safe_load(COMPOSE_FILE.read_text())))
