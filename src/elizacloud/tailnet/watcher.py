"""Keeps one netmap current by following a tailscaled's bus. One for each relay host and cell: the events are large.

A tailscaled that hangs says nothing, like one with nothing to say. So it is asked for its status once a second as well,
and is not believed any more when it does not answer: with PULSE_SECONDS and PULSE_DEADLINE_SECONDS found within 4 s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import NoReturn

import structlog

from elizacloud.beside import end
from elizacloud.errors import Error, TailnetUnavailable
from elizacloud.tailnet.bus import WATCH_NETMAP
from elizacloud.tailnet.localapi import LocalApi
from elizacloud.tailnet.netmap import Netmap, PeerChange

RETRY_FIRST_SECONDS = 0.05
RETRY_CAP_SECONDS = 0.5
PULSE_SECONDS = 1.0
PULSE_DEADLINE_SECONDS = 3.0

ChangeCallback = Callable[[tuple[PeerChange, ...]], None]
KnownCallback = Callable[[bool], None]

log = structlog.get_logger()


class NetmapWatcher:
    """`run()` is the owner's task. `on_change` is called in the same step of the event loop that changed the netmap.

    So whoever looks at the netmap after an `await` sees a change no later than the callback did. While the bus is not
    followed (tailscaled restarts, hangs, or cut us off because we fell behind) `netmap.known` is False.
    """

    def __init__(
        self,
        local_api: LocalApi,
        on_change: ChangeCallback | None = None,
        *,
        pulse_seconds: float = PULSE_SECONDS,
        pulse_deadline_seconds: float = PULSE_DEADLINE_SECONDS,
    ) -> None:
        self.netmap = Netmap()
        self.losses = 0
        """How often the netmap was known and then not followed any more."""
        self._api = local_api
        self._pulse_seconds = pulse_seconds
        self._pulse_deadline_seconds = pulse_deadline_seconds
        self._callbacks = [on_change] if on_change else []
        self._known_callbacks: list[KnownCallback] = []
        self._known = asyncio.Event()
        self._distrusted = asyncio.Event()
        self._said = False

    def on_change(self, callback: ChangeCallback) -> None:
        """Call this at each change from now on, also with none when the netmap is known again; it must not block or raise."""
        self._callbacks.append(callback)

    def on_known(self, callback: KnownCallback) -> None:
        """Call this whenever the netmap becomes known or unknown, after what it changed was told."""
        self._known_callbacks.append(callback)

    def distrust(self) -> None:
        """This process was frozen, or so: take the whole netmap anew before anybody acts on this one."""
        self._lose()
        self._distrusted.set()

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
            reason, followed = await self._follow()
            if followed or not self._said:
                self._said = True
                log.warning("netmap not followed", reason=reason, was_known=followed)
            delay = RETRY_FIRST_SECONDS if followed else min(delay * 2, RETRY_CAP_SECONDS)
            await asyncio.sleep(delay)

    async def _follow(self) -> tuple[str, bool]:
        """One subscription, to its end (tailscaled ends it for who falls 128 events behind): why, and whether it had begun."""
        losses = self.losses
        self._distrusted.clear()
        tasks = [
            asyncio.create_task(self._read(), name="netmap of tailscaled"),
            asyncio.create_task(self._pulse(), name="pulse of tailscaled"),
            asyncio.create_task(self._until_distrusted(), name="distrust of the netmap"),
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await end(tasks)
            self._lose()
        return _why_over(tasks), self.losses > losses

    async def _read(self) -> None:
        async with aclosing(self._api.watch(WATCH_NETMAP)) as events:
            async for event in events:
                changes = self.netmap.apply(event)
                if self.netmap.known and not self._known.is_set():
                    self._known.set()
                    if self._said:
                        log.info("netmap followed again", peers=sum(1 for _ in self.netmap))
                    self._said = False
                    self._tell(changes)
                    self._tell_known(known=True)
                elif changes:
                    self._tell(changes)

    async def _pulse(self) -> NoReturn:
        while True:
            await self._api.answers(within_seconds=self._pulse_deadline_seconds)
            await asyncio.sleep(self._pulse_seconds)

    async def _until_distrusted(self) -> NoReturn:
        await self._distrusted.wait()
        raise TailnetUnavailable("this process was held up, and cannot tell what it has missed")

    def _lose(self) -> None:
        self.netmap.lost()
        if self._known.is_set():
            self._known.clear()
            self.losses += 1
            self._tell_known(known=False)

    def _tell(self, changes: tuple[PeerChange, ...]) -> None:
        for callback in self._callbacks:
            callback(changes)

    def _tell_known(self, *, known: bool) -> None:
        for callback in self._known_callbacks:
            callback(known)


def _why_over(tasks: list[asyncio.Task[None]]) -> str:
    """The first error of tasks that are over; one that is not ours is raised."""
    errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
    for error in errors:
        if not isinstance(error, Error):
            raise error
    return str(errors[0]) if errors else "tailscaled ended the stream"
