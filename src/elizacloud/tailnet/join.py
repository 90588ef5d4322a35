"""Log a tailscaled in by its LocalAPI, as `tailscale up` does, and tell a dead pre-auth key from an unreachable server.

Reconnect first: a state directory that holds a node needs no key, so a key is only used when tailscaled asks for a login.
What `up` does is in cmd/tailscale/cli/up.go (runUp): watch the bus, `start` with whole preferences, `login-interactive`
when there is no node key yet, wait for Running. A node that the server no longer knows is logged out first, so that the new
one has a node key of its own.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from elizacloud.errors import Refused, TailnetUnavailable
from elizacloud.tailnet.bus import HAS_NETMAP, WATCH_LOGIN, State, login_error_of, state_of
from elizacloud.tailnet.localapi import LocalApi

# "invalid pre auth key", "authkey expired", "authkey already used", "invalid authkey" (hscontrol/auth.go and
# hscontrol/types/preauth_key.go, v0.27 to v0.29); the words may come in either order in another server.
_KEY = r"(?:pre[- ]?)?auth[- ]?key"
_BAD = r"(?:invalid|unknown|expired|already (?:been )?used|not found|revoked|failed to parse)"
_KEY_REFUSED = re.compile(rf"{_BAD}.{{0,20}}{_KEY}|{_KEY}.{{0,20}}{_BAD}", re.IGNORECASE)


class KeyRefused(Refused):
    """The server will never let this node in with the key it has: it needs a new one."""

    code = "key_refused"


@dataclass(frozen=True, slots=True)
class JoinPrefs:
    """The preferences of a node of ours. Routes and DNS of the tailnet are never accepted, tags come from the key only."""

    join_url: str
    hostname: str
    shields_up: bool = False
    """No connection comes in from the tailnet: for a relay."""

    def as_json(self) -> Mapping[str, Any]:
        """ipn.Prefs; what is left out is false or empty."""
        return {
            "ControlURL": self.join_url,
            "Hostname": self.hostname,
            "WantRunning": True,
            "ShieldsUp": self.shields_up,
            "RouteAll": False,
            "CorpDNS": False,
            "NetfilterMode": 0,
            "NoStatefulFiltering": True,
            "AutoUpdate": {"Check": False, "Apply": False},
        }

    def in_force(self, prefs: Mapping[str, Any]) -> bool:
        return all(prefs.get(name, False) == self.as_json()[name] for name in _COMPARED)


_COMPARED = ("ControlURL", "Hostname", "WantRunning", "ShieldsUp", "RouteAll", "CorpDNS")


@dataclass(frozen=True, slots=True)
class Joined:
    """This node, on the tailnet. `node_id` is Headscale's."""

    node_id: str
    ips: tuple[str, ...]

    @property
    def ipv4(self) -> str | None:
        return next((ip for ip in self.ips if ":" not in ip), None)


OnNetmap = Callable[[Joined], Awaitable[None]]


async def join(
    api: LocalApi,
    prefs: JoinPrefs,
    auth_key: SecretStr | None,
    *,
    within_seconds: float,
    on_netmap: OnNetmap | None = None,
) -> Joined:
    """Return when tailscaled is on the tailnet with these preferences; harmless when it is already.

    `on_netmap` is awaited once, as soon as this node knows its addresses: the moment to say what is served. tailscaled
    may take another 0.2 s to call itself Running, long after Headscale lists the node.

    Raises KeyRefused when the key is dead or there is none and one is needed, TailnetUnavailable when tailscaled or the
    server did not answer in time (its own retries go on, so a later call may find it joined).
    """
    attempt = _Attempt(api, prefs, auth_key, on_netmap)
    try:
        async with asyncio.timeout(within_seconds):
            await api.until_listening()
            return await attempt.until_running()
    except TimeoutError as error:
        why = attempt.last_error or f"{prefs.join_url} did not answer"
        raise TailnetUnavailable(f"cannot join the tailnet in {within_seconds:g} s: {why}") from error


class _Attempt:
    def __init__(self, api: LocalApi, prefs: JoinPrefs, auth_key: SecretStr | None, on_netmap: OnNetmap | None) -> None:
        self._api = api
        self._prefs = prefs
        self._auth_key = auth_key
        self._on_netmap = on_netmap
        self._key_used = False
        self.last_error = ""

    async def until_running(self) -> Joined:
        status = await self._api.status()
        if not status.has_node_key:
            await self._log_in(has_node_key=False)
        elif not self._prefs.in_force(await self._api.prefs()):
            await self._api.start(prefs=self._prefs.as_json(), auth_key=None)
        async with aclosing(self._api.watch(WATCH_LOGIN)) as events:
            async for event in events:
                if (text := login_error_of(event)) is not None:
                    self.last_error = text
                    if _KEY_REFUSED.search(text):
                        raise KeyRefused(f"cannot join the tailnet: {text}; mint a new pre-auth key")
                state = state_of(event)
                if event.get("SelfChange") or state in HAS_NETMAP:
                    await self._has_netmap(final=state is State.RUNNING)
                if state is State.RUNNING:
                    return await self._joined()
                if state is State.NEEDS_LOGIN and not self._key_used:
                    await self._log_in(has_node_key=status.has_node_key)
        raise TailnetUnavailable("cannot join the tailnet: tailscaled ended; look at its log")

    async def _has_netmap(self, *, final: bool) -> None:
        if self._on_netmap is None:
            return
        try:
            await self._on_netmap(await self._joined())
        except TailnetUnavailable:
            # The backend may announce its netmap a moment before it accepts calls about it; there will be another event.
            if final:
                raise
        else:
            self._on_netmap = None

    async def _joined(self) -> Joined:
        status = await self._api.status()
        if not status.ips:
            raise TailnetUnavailable("cannot join the tailnet: tailscaled does not know its address yet")
        return Joined(status.node_id, status.ips)

    async def _log_in(self, *, has_node_key: bool) -> None:
        if self._auth_key is None:
            raise KeyRefused("cannot join the tailnet: there is no node identity and no pre-auth key; mint a new one")
        self._key_used = True
        if has_node_key:
            # Peers never find a node key again that is another node's at once (magicsock.go, upsertPeerLocked, v1.102.3).
            await self._api.log_out()
        await self._api.start(prefs=self._prefs.as_json(), auth_key=self._auth_key)
        await self._api.login_interactive()
