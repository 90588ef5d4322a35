"""What the environment tells the agent: the Milady names (MILADY_* and ELIZA_* are aliases), ours, and STUB_* faults.

STUB_* switches, for tests of everything around an agent:

    STUB_START_DELAY_SECONDS   listen only after that time          STUB_NEVER_LISTEN=1        never listen
    STUB_READY_DELAY_SECONDS   `ready` is false for that time       STUB_NEVER_READY=1         `ready` stays false
    STUB_EXIT_AFTER_SECONDS    exit then, with STUB_EXIT_CODE (1)   STUB_HEALTH_REQUIRES_TOKEN=1   as older agents did
    STUB_STRICT_HOST=1         on a unix socket too, apply the Host and Origin gates of a loopback bind
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_PORT = 2138


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


Address = UnixAddress | TcpAddress


@dataclass(frozen=True, slots=True)
class Faults:
    """How it misbehaves, on demand."""

    start_delay_seconds: float = 0
    ready_delay_seconds: float = 0
    exit_after_seconds: float | None = None
    exit_code: int = 1
    never_listen: bool = False
    never_ready: bool = False


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that the agent is told from outside. `api_token` keeps out of repr."""

    listen: Address
    bind_host: str
    """What the Host gate believes the agent is bound to."""
    state_dir: Path
    api_token: str | None = field(default=None, repr=False)
    agent_name: str = "Milady"
    cloud_provisioned: bool = False
    allowed_hosts: tuple[str, ...] = ()
    allowed_origins: tuple[str, ...] = ()
    allow_ws_query_token: bool = False
    health_requires_token: bool = False
    agent_config: Mapping[str, Any] = field(default_factory=dict)
    """What the owner gave as `agentConfig` (the file that ELIZACLOUD_AGENT_CONFIG names)."""
    identity: Mapping[str, str] = field(default_factory=dict)
    """Which agent, generation and run this is, as far as it was told; shown by /api/echo."""
    faults: Faults = field(default_factory=Faults)


def parse_address(text: str) -> Address:
    """`unix:/path` or `host:port`; ValueError otherwise."""
    if text.startswith("unix:"):
        return UnixAddress(text.removeprefix("unix:"))
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"cannot listen on {text!r}: use unix:/path or host:port")
    return TcpAddress(host.strip("[]") or "127.0.0.1", int(port))


def read_config(environment: Mapping[str, str]) -> Config:
    """The agent's configuration from its environment; ValueError or OSError says what is wrong with it."""

    def milady(name: str, default: str = "") -> str:
        return environment.get(f"MILADY_{name}") or environment.get(f"ELIZA_{name}") or default

    def words(text: str) -> tuple[str, ...]:
        return tuple(word.strip() for word in text.split(",") if word.strip())

    def seconds(name: str) -> float:
        return float(environment.get(name) or 0)

    bind = milady("API_BIND")
    if listen_text := environment.get("ELIZACLOUD_AGENT_LISTEN"):
        listen = parse_address(listen_text)
    else:
        port = milady("PORT") or environment.get("PORT") or str(DEFAULT_PORT)
        listen = TcpAddress(bind or "127.0.0.1", int(port))
    if isinstance(listen, UnixAddress):
        # Who may open the socket is decided by its directory, so there is no rebinding to protect from.
        bind_host = (bind or "127.0.0.1") if environment.get("STUB_STRICT_HOST") == "1" else "0.0.0.0"
    else:
        bind_host = bind or listen.host
    config_path = environment.get("ELIZACLOUD_AGENT_CONFIG")
    agent_config = json.loads(Path(config_path).read_text()) if config_path else {}
    exit_after = environment.get("STUB_EXIT_AFTER_SECONDS")
    return Config(
        listen=listen,
        bind_host=bind_host,
        state_dir=Path(milady("STATE_DIR") or Path.home() / ".milady-stub"),
        api_token=milady("API_TOKEN") or None,
        agent_name=environment.get("AGENT_NAME") or str(agent_config.get("name") or "Milady"),
        cloud_provisioned=milady("CLOUD_PROVISIONED") == "1",
        allowed_hosts=words(milady("ALLOWED_HOSTS")),
        allowed_origins=words(milady("ALLOWED_ORIGINS")),
        allow_ws_query_token=milady("ALLOW_WS_QUERY_TOKEN") == "1",
        health_requires_token=environment.get("STUB_HEALTH_REQUIRES_TOKEN") == "1",
        agent_config=agent_config,
        identity={
            name: environment.get(variable, "")
            for name, variable in (
                ("agentId", "CONTAINER_ID"),
                ("generation", "ELIZACLOUD_GENERATION"),
                ("run", "ELIZACLOUD_RUN"),
            )
        },
        faults=Faults(
            start_delay_seconds=seconds("STUB_START_DELAY_SECONDS"),
            ready_delay_seconds=seconds("STUB_READY_DELAY_SECONDS"),
            exit_after_seconds=float(exit_after) if exit_after else None,
            exit_code=int(environment.get("STUB_EXIT_CODE") or 1),
            never_listen=environment.get("STUB_NEVER_LISTEN") == "1",
            never_ready=environment.get("STUB_NEVER_READY") == "1",
        ),
    )
