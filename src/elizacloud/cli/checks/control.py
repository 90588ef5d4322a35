"""Headscale and the control plane: reachable, of a version we know, with a valid key and policy; ready, and our token good."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from elizacloud.cli.checks.check import Check, fail, ok, warn
from elizacloud.cli.checks.facts import Facts
from elizacloud.client import UNREACHABLE, Client
from elizacloud.errors import Error, Forbidden, Unauthenticated, Unavailable
from elizacloud.headscale.preflight import Finding, preflight


def control_checks(facts: Facts) -> list[Check]:
    async def headscale() -> Sequence[Finding]:
        url, key = facts.headscale_url, facts.headscale_key
        if url is None:
            return []
        if key is None:
            fix = "make one with `headscale apikeys create` and set ELIZACLOUD_HEADSCALE_API_KEY"
            return [fail("headscale API key", f"there is none for {url}", fix)]
        join_url = facts.settings.headscale_join_url
        return [*await preflight(url, key, join_url=join_url), join_reach(join_url or url)]

    async def control_plane() -> Sequence[Finding]:
        return [await _ready(facts)]

    async def token() -> Sequence[Finding]:
        return [await _token(facts)]

    return [Check("headscale", headscale), Check("control plane", control_plane), Check("token", token)]


def join_reach(join_url: str) -> Finding:
    """From where agents can join: the seed's "is HEADSCALE_URL reachable from the container"."""
    name = "join address"
    host = urlsplit(join_url).hostname or ""
    if host == "localhost" or _is_loopback(host):
        return ok(name, f"{join_url}: agents on this machine join there; those in containers or elsewhere cannot")
    if join_url.startswith("http://") and not _is_address(host):
        fix = "set ELIZACLOUD_HEADSCALE_JOIN_URL to an https URL or an IP address"
        return fail(name, f"agents that joined at {join_url} never come back after a restart of Headscale", fix)
    return ok(name, f"agents join at {join_url}, which must be reachable from where they run")


async def _ready(facts: Facts) -> Finding:
    name = "control plane"
    url = facts.running.url if facts.running is not None else facts.context.url
    async with Client(url) as client:
        try:
            await client.ready()
        except Unavailable as error:
            if error.reason != UNREACHABLE:
                return fail(name, f"{url} is not ready: {error}", "see the control plane's log")
            if facts.running is None:
                return warn(name, f"nothing answers at {url}", "`elizacloud up` starts it here, or set ELIZACLOUD_URL")
            logs = facts.settings.data_dir / "logs"
            return fail(name, f"`elizacloud up` runs, but {error}", f"see the logs in {logs}")
        except Error as error:
            return fail(name, f"{url} is not ready: {error}", "see the control plane's log")
    return ok(name, f"{url} is ready")


async def _token(facts: Facts) -> Finding:
    name, context = "token", facts.context
    if context.token is None:
        return warn(name, f"there is none for {context.url}", "run `elizacloud login`, or set ELIZACLOUD_TOKEN")
    async with Client(context.url, context.token) as client:
        try:
            async for _ in client.agents():
                break
        except (Unauthenticated, Forbidden) as error:
            return fail(name, f"that of {context.source}: {error}", "run `elizacloud login` again")
        except Unavailable:
            return warn(name, f"that of {context.source} could not be tried", "see the control plane's finding")
    return ok(name, f"that of {context.source} is accepted at {context.url}")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_loopback(host: str) -> bool:
    return _is_address(host) and ipaddress.ip_address(host).is_loopback
