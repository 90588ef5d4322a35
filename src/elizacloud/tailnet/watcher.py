"""Keeps one netmap current by following a tailscaled's bus. One for each relay host and cell: the events are large."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import NoReturn

import structlog

from elizacloud.errors import Error, TailnetUnavailable
from elizacloud.tailnet.bus import WATCH_NETMAP
from elizacloud.tailnet.localapi import LocalApi
from elizacloud.tailnet.netmap import Netmap, PeerChange

RETRY_FIRST_SECONDS = 0.05
RETRY_CAP_SECONDS = 2.0

ChangeCallback = Callable[[tuple[PeerChange, ...]], None]

log = structlog.get_logger()


class NetmapWatcher:
    """`run()` is the owner's task. `on_change` is called in the same step of the event loop that changed the netmap.

    So whoever looks at the netmap after an `await` sees a change no later than the callback did. While the bus is not
    followed (tailscaled restarts, or cut us off because we fell behind) `netmap.known` is False.
    """

    def __init__(self, local_api: LocalApi, on_change: ChangeCallback | None = None) -> None:
        self.netmap = Netmap()
        self._api = local_api
        self._callbacks = [on_change] if on_change else []
        self._known = asyncio.Event()

    def on_change(self, callback: ChangeCallback) -> None:
        """Call this at each change from now on; it must not block or raise."""
        self._callbacks.append(callback)

    async def until_known(self, *, within_seconds: float) -> None:
        """Return when the netmap is current. Raises TailnetUnavailable when it is not in time."""
        try:
            async with asyncio.timeout(within_seconds):
                await self._known.wait()
        except TimeoutError as error:
            raise TailnetUnavailable(
                f"cannot see the tailnet: tailscaled at {self._api.socket} told nothing in {within_seconds:g} s"
            ) from error

    async def run(self) -> NoReturn:
        """Follow the bus for ever, subscribing again whenever it ends."""
        delay = RETRY_FIRST_SECONDS
        while True:
            followed = await self._follow()
            delay = RETRY_FIRST_SECONDS if followed else min(delay * 2, RETRY_CAP_SECONDS)
            await asyncio.sleep(delay)

    async def _follow(self) -> bool:
        """One subscription, to its end (tailscaled ends it for who falls 128 events behind); True when it had begun."""
        reason = "tailscaled ended the stream"
        try:
            async with aclosing(self._api.watch(WATCH_NETMAP)) as events:
                async for event in events:
                    if changes := self.netmap.apply(event):
                        self._tell(changes)
                    if self.netmap.known:
                        self._known.set()
        except Error as error:
            reason = str(error)
        finally:
            followed = self.netmap.known
            self.netmap.lost()
            self._known.clear()
        log.warning("netmap not followed", reason=reason, was_known=followed)
        return followed

    def _tell(self, changes: tuple[PeerChange, ...]) -> None:
        for callback in self._callbacks:
            callback(changes)
