"""Find the way to a peer before the first connection to it, because WireGuard is slow to forgive a lost packet.

A node is in its peers' netmaps some 10 to 200 ms before its addresses are, and before its own DERP connection stands. A
dial in that time loses a handshake packet, and WireGuard tries again after 5 s (REKEY_TIMEOUT). A disco ping costs
nothing when it is lost: measured on one machine, the first dial took 5.1 to 5.4 s without one and 5 ms after one from
each side (0.19 s after one from the dialling side only).
"""

from __future__ import annotations

import asyncio
import contextlib

from elizacloud.errors import TailnetUnavailable
from elizacloud.tailnet.localapi import LocalApi

TRY_FIRST_SECONDS = 0.03
TRY_CAP_SECONDS = 1.0
REFUSED_PAUSE_SECONDS = 0.01


async def find_path(api: LocalApi, ip: str, *, within_seconds: float) -> None:
    """Return when the peer answered a ping, so that packets flow both ways. Raises TailnetUnavailable when it does not."""
    patience = TRY_FIRST_SECONDS
    last = "no answer"
    try:
        async with asyncio.timeout(within_seconds):
            while True:
                try:
                    async with asyncio.timeout(patience):
                        await api.ping(ip)
                    return
                except TimeoutError:
                    # tailscaled sends one packet for each request: a new one, with more patience.
                    patience = min(patience * 1.5, TRY_CAP_SECONDS)
                except TailnetUnavailable as error:
                    last = str(error)
                    await asyncio.sleep(REFUSED_PAUSE_SECONDS)
    except TimeoutError as error:
        raise TailnetUnavailable(f"cannot find a path to {ip} in {within_seconds:g} s: {last}") from error


async def find_paths(api: LocalApi, *, within_seconds: float) -> None:
    """`find_path` to every peer there is, all at once, for a node with few peers. Whom it does not find, it leaves."""

    async def find(ip: str) -> None:
        with contextlib.suppress(TailnetUnavailable):  # a peer that is down now finds us when it is back
            await find_path(api, ip, within_seconds=within_seconds)

    with contextlib.suppress(TailnetUnavailable):
        ips = await api.peer_ips()
        async with asyncio.TaskGroup() as tasks:
            for ip in ips:
                tasks.create_task(find(ip), name=f"path to {ip}")
