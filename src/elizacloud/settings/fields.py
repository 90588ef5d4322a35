"""Every setting, with its default, unit and reason; the relay's own are in relay.py, those of Docker in docker.py."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from elizacloud.settings.docker import DockerSettings
from elizacloud.settings.idle import IdleSettings
from elizacloud.settings.issuers import TrustedIssuers
from elizacloud.settings.kinds import HeadscaleUrl, HostPort, Port, Seconds, Secret, Url
from elizacloud.settings.relay import RelaySettings

ENV_PREFIX = "ELIZACLOUD_"


class Settings(RelaySettings, DockerSettings, IdleSettings):
    """The settings of every process of elizacloud; each one uses what it needs."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True, env_ignore_empty=True)

    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("elizacloud")),
        description="Where all state lives (0700). One control plane at a time holds it.",
    )
    cache_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("elizacloud")),
        description="Where downloaded and built binaries are kept; safe to delete.",
    )
    host: str = Field("127.0.0.1", description="Address that the front door (the relay) listens on.")
    port: Port = Field(8420, description="Port of the front door; 0 takes a free one.")
    public_url: Url | None = Field(
        None, description="How clients reach the front door, when another proxy stands before it."
    )
    relay_domain: str = Field(
        "localhost", description="Domain of the browser front: each agent is {agentId}.{relay_domain}."
    )
    runtime: Literal["process", "docker"] = Field(
        "process", description="Where agents run: as processes that do not isolate, or in containers on Docker."
    )

    headscale: str = Field(
        "auto",
        description="auto (Headscale if it can be had, else devcontrol), devcontrol, a binary's path, or a URL.",
    )
    headscale_api_url: HeadscaleUrl | None = Field(None, description="Where the control plane reaches Headscale's API.")
    headscale_api_key: Secret | None = Field(None, description="Headscale's API key; file:/path is accepted.")
    headscale_join_url: HeadscaleUrl | None = Field(
        None, description="The URL that agents join at: Headscale's server_url."
    )
    headscale_ipv4_prefix: IPv4Network = Field(
        IPv4Network("100.64.0.0/10"),
        description="What Headscale gives addresses from (its prefixes.v4): to tell how many are left.",
    )
    report_url: Url | None = Field(None, description="The URL that containers report to; serves /containers/* only.")
    report_listen: HostPort | None = Field(
        None, description="host:port where the control plane listens for these reports."
    )

    database_url: Secret | None = Field(
        None, description="postgresql://user:password@host/name; without it, SQLite in the data dir."
    )
    operator_token: Secret | None = Field(
        None, description="A service token for platforms; made at first start if not given."
    )
    secret_key: Secret | None = Field(
        None, description="Encrypts secrets at rest (base64, 32 bytes); made at first start if not given."
    )
    trusted_issuers: TrustedIssuers = Field(
        default_factory=tuple,
        description="Platforms whose JWTs are accepted: issuer, jwks_url, audience, owner_claim, owner_prefix (JSON or TOML).",
    )
    session_seconds: Seconds = Field(43_200, description="How long a browser's session with an agent lasts at most.")
    ticket_seconds: Seconds = Field(60, description="How long a one-time ticket can be redeemed.")
    signing_key_seconds: int = Field(
        86_400, ge=10, le=30 * 86_400, description="How long a key signs JWTs before the next one takes its place."
    )
    api_socket: Path | None = Field(None, description="Unix socket of the API; in the data dir unless given.")
    link_socket: Path | None = Field(None, description="Unix socket of the link between control plane and relays.")
    tailscaled_socket: Path | None = Field(
        None, description="LocalAPI socket of the relay's tailscaled, in a 0700 directory."
    )
    relay_tailscaled_memory: str = Field(
        "512MiB",
        pattern=r"^[1-9][0-9]*[KMG]iB$",
        description="GOMEMLIMIT of the relay's tailscaled under `up`. Each open connection takes 80 KB of it; what is too tight "
        "costs speed in long bodies.",
    )
    listen_fd: int | None = Field(
        None, description="An inherited listening socket for the front door, instead of host and port."
    )
    devcontrol_debug_listen: HostPort | None = Field(
        None, description="Loopback host:port of devcontrol's fault switches; off."
    )
    process_host_socket: Path | None = Field(None, description="Unix socket of the process runtime's host.")

    headscale_bin: Path | None = Field(None, description="A headscale binary to use.")
    headscale_sha256: str | None = Field(
        None, description="Expected SHA-256 of a downloaded headscale, for versions that have no pin."
    )
    tailscaled_bin: Path | None = Field(None, description="A tailscaled binary to use.")
    devcontrol_bin: Path | None = Field(None, description="A devcontrol binary to use.")

    create_wait_seconds: Seconds = Field(
        30, description="How long POST /api/v1/agents waits for the join before it answers 202; 120 at most."
    )
    creates_per_minute: int = Field(
        240,
        ge=0,
        description="How many agents one owner may create, or start before they ever joined, in a minute, since each mints a "
        "key; 0: no limit.",
    )
    key_lifetime_seconds: Seconds = Field(
        600, description="How long a pre-auth key can be used; it is single-use in any case."
    )
    poll_seconds: Seconds = Field(
        15, description="The slow poll behind events that say a node joined or an agent got ready."
    )
    drain_seconds: Seconds = Field(
        20, description="How long in-flight requests may take to finish when a process stops."
    )

    keep_events_seconds: int = Field(30 * 86_400, ge=3_600, description="How long the events of agents are kept.")
    keep_gone_seconds: int = Field(
        30 * 86_400, ge=2 * 86_400, description="How long an agent that is gone is kept in the store."
    )

    metrics_listen: HostPort | None = Field(
        None, description="Relay: host:port for Prometheus metrics of all its workers; off unless given."
    )
    control_metrics_listen: HostPort | None = Field(
        None, description="Control plane: host:port for its Prometheus metrics; off unless given."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line written."
    )
    log_json: bool | None = Field(None, description="JSON logs; unset means JSON unless on a terminal.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings)
