"""What agents may reach of their Docker host, and who may reach them on their bridge: packet filters on the host.

A container that has no capability cannot be confined from inside of its network namespace, so the filters are set on the host,
once for an installation's bridge, by a container that lives for a moment and runs the host's own iptables, which Docker needs
itself. The control plane needs no root for that and may be elsewhere. docs/decisions/0013-filters-on-the-bridge.md.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

import structlog

from elizacloud.errors import NotFound, RuntimeRefused
from elizacloud.runtime.docker.engine import Engine
from elizacloud.runtime.docker.handed import SHELL
from elizacloud.runtime.docker.host import is_rootless
from elizacloud.runtime.docker.labels import INSTALLATION

SET_SECONDS = 30.0
LAST_LINES = 5
WIREGUARD_PORT = 41641
"""container-init's; a relay on this host finds its way to an agent there."""
_PORTS = {"http": 80, "https": 443}
_LINK_LOCAL = "169.254.0.0/16"
"""Where clouds keep their metadata, and some of them their resolver, which alone stays open."""
_ON_THE_HOST = f"{SHELL} chroot /host iptables --wait"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/run/current-system/sw/bin"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Opening:
    """A port of the host that agents need."""

    port: int
    address: str | None = None
    """None when the host goes by a name: then the port is open at any of its addresses."""
    protocol: str = "tcp"


def openings_for(urls: Iterable[str | None], *, stun_port: int) -> tuple[Opening, ...]:
    """Those of the control server and the report listener, by their URLs; the first one's STUN beside them.

    A tailscaled whose STUN is not answered waits for 3 s before it takes the DERP next to it (netcheck, tailscale v1.102.3).
    """
    found = {Opening(stun_port, protocol="udp")}
    for url in urls:
        if url is None:
            continue
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or _PORTS[parts.scheme]
        try:
            found.add(Opening(port, str(ipaddress.IPv4Address(host))))
        except ValueError:
            found.add(Opening(port))
    return tuple(sorted(found, key=lambda each: (each.protocol, each.port, each.address or "")))


def script(bridge: str, openings: Sequence[Opening], networks_closed: Sequence[str], *, rootless: bool = False) -> str:
    """POSIX sh that sets the filters of one bridge. Run again it sets them anew, without a moment in which all is open.

    What is let through is returned to the host's own chains, which may still refuse it. To a rootless Docker its host is one
    of the network's machines.
    """
    known = "-m conntrack --ctstate ESTABLISHED,RELATED -j RETURN"
    to_host, from_host, onward, inward = (f"EC-{part}-{bridge}" for part in ("IN", "OUT", "FWD", "TO"))
    chains = {
        to_host: [known, *(_open(each) for each in openings), "-j DROP"],
        from_host: [known, f"-p udp --dport {WIREGUARD_PORT} -j RETURN", "-j DROP"],
        onward: [
            *(f"-d {_LINK_LOCAL} -p {protocol} --dport 53 -j RETURN" for protocol in ("udp", "tcp")),
            *(_only(openings) if rootless else ()),
            *(f"-d {network} -j DROP" for network in networks_closed),
            "-j RETURN",
        ],
        inward: [known, "-j DROP"],
    }
    hooks = [
        ("INPUT", f"-i {bridge} -j {to_host}"),
        ("OUTPUT", f"-o {bridge} -j {from_host}"),
        ("DOCKER-USER", f"-i {bridge} -j {onward}"),
        ("DOCKER-USER", f"-o {bridge} -j {inward}"),
    ]
    lines = [f"set -eu; export PATH={_PATH}", f't() {{ {_ON_THE_HOST} "$@"; }}']
    for chain, rules in chains.items():
        # The new rules come before the old ones, which are then cut off from the end.
        lines.append(f"t -N {chain} 2>/dev/null || :; n=$(t -S {chain} | {SHELL} grep -c '^-A' || :)")
        lines += [f"t -I {chain} {number} {rule}" for number, rule in enumerate(rules, 1)]
        lines.append(f'while [ "$n" -gt 0 ]; do t -D {chain} {len(rules) + 1}; n=$((n - 1)); done')
    lines += [f"t -C {chain} {rule} 2>/dev/null || t -I {chain} 1 {rule}" for chain, rule in hooks]
    return "\n".join(lines)


def _only(openings: Sequence[Opening]) -> list[str]:
    """Of each address that has one, only what is opened; but any UDP, by which relays there are found."""
    addresses = sorted({each.address for each in openings if each.address is not None})
    opened = [_open(replace(each, address=address)) for address in addresses for each in openings
              if each.address in (None, address)]  # fmt: skip
    return [*opened, *(f"-p tcp -d {address} -j DROP" for address in addresses)]


def _open(opening: Opening) -> str:
    to = f" -d {opening.address}" if opening.address else ""
    return f"-p {opening.protocol}{to} --dport {opening.port} -j RETURN"


class Firewall:
    """Sets the filters of a host's bridges, each once, and again when Docker or what is open has changed."""

    def __init__(self, engine: Engine, networks_closed: Sequence[str]) -> None:
        self._engine = engine
        self._networks_closed = networks_closed
        self._set: dict[str, tuple[Opening, ...]] = {}
        self._setting = asyncio.Lock()

    def forget(self) -> None:
        """Docker or its host were started anew: nothing is known of what is set there."""
        self._set.clear()

    async def ensure(self, installation_id: str, bridge: str, openings: tuple[Opening, ...], image_id: str) -> None:
        """`image_id` is the sidecar's. Raises RuntimeRefused `firewall_failed`; then no agent may run on that bridge."""
        async with self._setting:
            if self._set.get(bridge) == openings:
                return
            async with self._engine.asked("set the packet filters") as docker:
                rootless = is_rootless(await docker.system.info())
            commands = script(bridge, openings, self._networks_closed, rootless=rootless)
            await self._run(_config(installation_id, image_id, commands))
            self._set[bridge] = openings
            log.info("packet filters set", bridge=bridge)

    async def _run(self, config: dict[str, Any]) -> None:
        async with self._engine.asked("set the packet filters", within_seconds=SET_SECONDS) as docker:
            container = await docker.containers.create(config)
            try:
                await container.start()
                code = (await container.wait())["StatusCode"]
                said = await container.log(stdout=True, stderr=True, tail=LAST_LINES) if code else []
            finally:
                with suppress(NotFound):
                    await container.delete(force=True)
        if code:
            raise RuntimeRefused(
                f"cannot set the packet filters that confine agents to their bridge: {' '.join(''.join(said).split())[:500]}; "
                "install iptables on the Docker host, or set docker_firewall to false and confine agents yourself",
                code="firewall_failed",
            )


def _config(installation_id: str, image_id: str, commands: str) -> dict[str, Any]:
    return {
        "Image": image_id,
        "User": "0:0",
        "Entrypoint": [SHELL, "sh", "-c", commands],
        "Labels": {INSTALLATION: installation_id},
        "HostConfig": {
            "NetworkMode": "host",
            "CapDrop": ["ALL"],
            "CapAdd": ["NET_ADMIN", "NET_RAW", "SYS_CHROOT"],
            "SecurityOpt": ["no-new-privileges"],
            "ReadonlyRootfs": True,
            "Binds": ["/:/host"],
        },
    }
