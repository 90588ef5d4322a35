"""The relay's own place on the tailnet: a tailscaled with tag:relay that accepts no connection and dials agents."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import structlog

from elizacloud.app.children import ChildSpec
from elizacloud.app.tailnet_mode import starting_tailscaled
from elizacloud.errors import Misconfigured
from elizacloud.headscale.protocol import Headscale
from elizacloud.model import TAG_RELAY, installation_tag
from elizacloud.tailnet.join import Joined, JoinPrefs, KeyRefused, join
from elizacloud.tailnet.localapi import LocalApi
from elizacloud.tailnet.tailscaled import STATE_FILE, Tailscaled, udp_port_of
from elizacloud.tailnet.tunnel import DEVICE

KEY_LIFETIME_SECONDS = 300.0
JOIN_SECONDS = 30.0

log = structlog.get_logger()


class RelayNode:
    """One relay host's node in one cell. `directory` holds its identity, `socket` lies in a 0700 directory."""

    def __init__(
        self,
        binary: Path,
        directory: Path,
        socket: Path,
        *,
        join_url: str,
        installation_id: str,
        memory_limit: str,
        tun: bool = False,
    ) -> None:
        self._binary = binary
        self._directory = directory
        self._socket = socket
        self._join_url = join_url
        self._installation_id = installation_id
        self._memory_limit = memory_limit
        self._tun = tun

    def child(self) -> ChildSpec:
        """What to run. The state directory is made here, as the node's UDP port is kept in it."""
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        tailscaled = Tailscaled(
            binary=self._binary,
            state_dir=self._directory,
            socket=self._socket,
            join_url=self._join_url,
            udp_port=udp_port_of(self._directory),
            memory_limit=self._memory_limit,
        )
        if self._tun:
            tailscaled = replace(tailscaled, tun=DEVICE)
        tailscaled.prepare()
        _check_state(self._directory / STATE_FILE)
        starting = starting_tailscaled if self._tun else nullcontext
        return ChildSpec("relay tailscaled", tailscaled.argv(), tailscaled.environment(), starting=starting)

    async def join(self, headscale: Headscale) -> Joined:
        """Return when it is on the tailnet."""
        return await join_as_relay(
            headscale, self._socket, join_url=self._join_url, installation_id=self._installation_id
        )


async def join_as_relay(
    headscale: Headscale, socket: Path, *, join_url: str, installation_id: str, within_seconds: float = JOIN_SECONDS
) -> Joined:
    """Log in the tailscaled at this socket. A node that joined before needs no key; a new one gets a single-use key."""
    prefs = JoinPrefs(join_url, f"elizacloud-relay-{installation_id}", shields_up=True)
    api = LocalApi(socket)
    try:
        try:
            return await join(api, prefs, None, within_seconds=within_seconds)
        except KeyRefused:
            tags = (TAG_RELAY, installation_tag(installation_id))
            key = await headscale.create_preauth_key(tags=tags, lifetime_seconds=KEY_LIFETIME_SECONDS)
        try:
            joined = await join(api, prefs, key.value, within_seconds=within_seconds)
        finally:
            await headscale.expire_preauth_key(key.id)
        log.info("relay joined", node=joined.node_id, ip=joined.ipv4)
        return joined
    finally:
        await api.close()


def _check_state(file: Path) -> None:
    """tailscaled itself would start with a damaged one, and then refuse every command."""
    try:
        json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise Misconfigured(
            f"cannot use the relay's identity {file}: it is damaged; delete it, and the relay joins as a new node"
        ) from error
