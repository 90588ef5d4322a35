"""The config.yaml of the Headscale that we supervise. Pure: `render` maps facts to text.

Written against hscontrol/types/config.go at v0.27.1, v0.28.0 and v0.29.2. A key that a version does not know yet is
ignored by it, and a removed one is fatal, so one text of keys that none removed serves all. Misspelt keys are ignored
too: the contract suite, not `configtest`, is what proves it.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

DATABASE = "db.sqlite"
PREFIX_V4 = "100.64.0.0/10"
PREFIX_V6 = "fd7a:115c:a1e0::/48"


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """What one supervised Headscale is told. Paths are absolute; `join_url` is what agents join at."""

    directory: Path
    unix_socket: Path
    join_url: str
    listen_host: str
    port: int
    stun_port: int
    metrics_port: int
    ipv6: bool
    """Whether this machine has an IPv6 loopback address."""

    @property
    def stun_listen(self) -> str:
        """One socket for both families where there are two. STUN tells a caller its own address and nothing else."""
        return f"[::]:{self.stun_port}" if self.ipv6 else f"0.0.0.0:{self.stun_port}"


def render(config: ServerConfig) -> str:
    return yaml.safe_dump(_document(config), sort_keys=False)


def _document(config: ServerConfig) -> dict[str, Any]:
    return {
        "server_url": config.join_url,
        "listen_addr": f"{_bracketed(config.listen_host)}:{config.port}",
        "metrics_listen_addr": f"127.0.0.1:{config.metrics_port}",
        "grpc_listen_addr": "127.0.0.1:0",
        "grpc_allow_insecure": False,
        "unix_socket": str(config.unix_socket),
        "unix_socket_permission": "0600",
        "noise": {"private_key_path": str(config.directory / "noise_private.key")},
        # Random, so that the address of a deleted agent is rarely handed to the next one.
        "prefixes": {"v4": PREFIX_V4, "v6": PREFIX_V6, "allocation": "random"},
        "derp": {
            "server": {
                "enabled": True,
                "region_id": 999,
                "region_code": "elizacloud",
                "region_name": "elizacloud",
                "verify_clients": True,
                "stun_listen_addr": config.stun_listen,
                "private_key_path": str(config.directory / "derp_server_private.key"),
                "automatically_add_embedded_derp_region": True,
                **_derp_addresses(config),
            },
            "urls": [],
            "paths": [],
            "auto_update_enabled": False,
        },
        "database": {
            "type": "sqlite",
            "sqlite": {"path": str(config.directory / DATABASE), "write_ahead_log": True},
        },
        "policy": {"mode": "database"},
        "dns": {"magic_dns": False, "override_local_dns": False, "base_domain": ""},
        # A join waits for four ticks of the node store one after another, 500 ms each by default.
        "tuning": {"node_store_batch_timeout": "10ms", "batch_change_delay": "10ms"},
        "log": {"level": "info", "format": "text"},
        "logtail": {"enabled": False},
        "taildrop": {"enabled": False},
        # Every start, also of its command line, would ask GitHub.
        "disable_check_updates": True,
    }


def _derp_addresses(config: ServerConfig) -> dict[str, str]:
    """The literal addresses of the embedded DERP and STUN.

    On a machine with IPv6, tailscaled's netcheck waits 3 s for a STUN answer over it; without an address there to ask,
    every join takes that long.
    """
    host = urlsplit(config.join_url).hostname or ""
    if host == "localhost":
        host = "127.0.0.1"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return {}
    addresses = {"ipv4": host} if address.version == 4 else {"ipv6": host}
    if address.is_loopback and config.ipv6:
        addresses["ipv6"] = "::1"
    return addresses


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
