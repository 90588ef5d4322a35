"""The relay's own settings: deadlines, the front door, limits. All limits count in each worker for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from elizacloud.settings.kinds import Count, Networks, Origins, Seconds


class RelaySettings(BaseSettings):
    workers: int = Field(
        1, ge=1, le=64, description="Relay: processes that share the front door; about one for each CPU core."
    )
    headers_timeout_seconds: Seconds = Field(
        15, description="Relay: longest time for a client to send its request's headers."
    )
    dial_timeout_seconds: Seconds = Field(5, description="Relay: longest time to connect to an agent.")
    first_byte_timeout_seconds: Seconds = Field(60, description="Relay: longest time until the agent's answer begins.")
    tailnet_mode: Literal["userspace", "tun"] = Field(
        "userspace",
        description="Relay: how it dials agents. tun is faster, and needs CAP_NET_ADMIN and /dev/net/tun (docs/tun.md).",
    )
    wake_hold_seconds: Seconds = Field(
        8, description="Relay: longest time a request is held for an agent that is coming up."
    )
    offline_grace_seconds: Seconds = Field(
        3600,
        description="Relay: how long known tokens are honoured without a control plane that can read its database.",
    )
    tls_certificate_file: Path | None = Field(
        None,
        description="Relay: PEM chain of the front door's certificate: it then speaks TLS itself. Renewed files are seen.",
    )
    tls_key_file: Path | None = Field(None, description="Relay: PEM key of that certificate, not encrypted.")
    cors_origins: Origins = Field(
        default_factory=tuple,
        description="Relay: origins whose pages may call API and agents, as https://app.example.com, with commas between.",
    )
    trusted_proxies: Networks = Field(
        default_factory=tuple,
        description="Relay: addresses or networks of proxies in front, whose X-Forwarded-* and X-Request-Id count.",
    )
    access_log: float = Field(
        1, ge=0, le=1, description="Relay: share of requests with a line in the access log: 1 all, 0.01 some, 0 none."
    )
    agent_in_flight: Count = Field(1000, description="Relay: most requests in flight for one agent, in each worker.")
    owner_in_flight: Count = Field(2000, description="Relay: the same for all agents of one owner.")
    agent_streams: Count = Field(
        2000, description="Relay: most WebSockets and event streams open for one agent, in each worker."
    )
    owner_streams: Count = Field(10_000, description="Relay: the same for all agents of one owner.")
    agent_requests_per_second: float | None = Field(
        None, gt=0, description="Relay: requests a second to one agent, in each worker; no limit unless given."
    )
    owner_requests_per_second: float | None = Field(
        None, gt=0, description="Relay: the same for all agents of one owner."
    )
    agent_bytes_per_second: float | None = Field(
        None,
        gt=0,
        description="Relay: bytes a second to and from one agent together, in each worker; what is faster is slowed down.",
    )
    owner_bytes_per_second: float | None = Field(
        None, gt=0, description="Relay: the same for all agents of one owner; neither has a limit unless given."
    )
    connections_per_address: Count = Field(
        1000, description="Relay: most connections of one client address (IPv6: /64), in each worker; not of a proxy's."
    )
    headless_per_address: Count = Field(
        500,
        description="Relay: most of those that have not sent the headers of a request yet, as slow attacks do; "
        "as many more may be in a TLS handshake.",
    )
    dials_per_agent: Count = Field(
        32, description="Relay: most dials to one agent at a time; who waits shares their outcome."
    )
    body_timeout_seconds: Seconds = Field(
        30, description="Relay: while a request's body is awaited, the time in which a least amount of it must come."
    )
    body_bytes_per_second: int = Field(64, ge=0, description="Relay: that least amount, as an average over that time.")
    max_body_bytes: Count | None = Field(
        None, description="Relay: longest body of a request; no limit unless given, since bodies are never held."
    )
