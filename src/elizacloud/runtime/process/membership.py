"""The tailnet half of a unit: join, publish the agent's port, report the address. Then there is nothing left to do.

The port is published as soon as the node has an address and before the address is reported: until then a connection to
it would end at the host's own 127.0.0.1:2138. The report is a hint; whoever gets it looks at Headscale.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp
from pydantic import SecretStr

from elizacloud.errors import TailnetUnavailable
from elizacloud.model import AGENT_PORT
from elizacloud.processes import Backoff
from elizacloud.tailnet import Joined, JoinPrefs, LocalApi, find_paths, join

JOIN_SECONDS = 60.0
JOIN_BACKOFF = Backoff(first_seconds=0.1, cap_seconds=5.0, jitter=0.0)
PATHS_SECONDS = 10.0
REPORT_SECONDS = 10.0
REPORT_FOR_SECONDS = 600.0
REPORT_BACKOFF = Backoff(first_seconds=0.1, cap_seconds=15.0, jitter=0.0)

Say = Callable[[str], None]
"""Adds a line to what the owner reads in the agent's log."""


@dataclass(frozen=True, slots=True)
class Report:
    """Where and with what token the address is reported."""

    url: str
    agent_id: str
    join_token: SecretStr


async def be_member(
    api: LocalApi,
    prefs: JoinPrefs,
    auth_key: SecretStr | None,
    *,
    serve_target: str,
    report: Report | None,
    http: aiohttp.ClientSession,
    say: Say,
    identified: asyncio.Event,
) -> None:
    """Join, and return when all is said. Raises KeyRefused; an unreachable server is tried for ever.

    `identified` is set as soon as the state volume holds the node's identity: tailscaled saves that before it tells a netmap.
    """
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:

        async def publish(node: Joined) -> None:
            identified.set()
            await api.set_serve(AGENT_PORT, serve_target)
            tasks.create_task(find_paths(api, within_seconds=PATHS_SECONDS), name=f"paths of {prefs.hostname}")
            say(f"on the tailnet as {' '.join(node.ips)} after {time.monotonic() - began:.2f} s")
            if report is not None and node.ipv4 is not None:
                tasks.create_task(_report(report, node.ipv4, http, say), name=f"report of {prefs.hostname}")

        tries = 0
        while True:
            try:
                await join(api, prefs, auth_key, within_seconds=JOIN_SECONDS, on_netmap=publish)
                break
            except TailnetUnavailable as error:
                say(str(error))
            # An attempt may fail at once, too: while tailscaled cannot write its state, it refuses what it is told.
            tries += 1
            await asyncio.sleep(JOIN_BACKOFF.delay_seconds(tries, 0))


async def _report(report: Report, ip: str, http: aiohttp.ClientSession, say: Say) -> None:
    """Tell the control plane the address, until it says yes, or no, or ten minutes have passed."""
    url = f"{report.url}/containers/{report.agent_id}/networking"
    headers = {"Authorization": f"Bearer {report.join_token.get_secret_value()}"}
    deadline = time.monotonic() + REPORT_FOR_SECONDS
    tries = 0
    while time.monotonic() < deadline:
        answer = ""
        try:
            async with http.post(
                url, json={"headscaleIp": ip}, headers=headers, timeout=aiohttp.ClientTimeout(total=REPORT_SECONDS)
            ) as response:
                if response.status == 200:
                    return
                answer = f"HTTP status {response.status}"
                if 400 <= response.status < 500 and response.status not in (408, 425, 429):
                    break
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            answer = str(error) or type(error).__name__
        tries += 1
        await asyncio.sleep(REPORT_BACKOFF.delay_seconds(tries, 0))
    say(f"the address was not accepted by {report.url} ({answer}); the control plane finds it by itself")
