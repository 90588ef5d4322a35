"""One netmap, watched once a host, told to every worker on it: a whole one at first, then changes, and a sign of life.

    down  {"self": [ip..], "peers": [..]}       the whole netmap, which is known now
          {"self": [ip..], "changes": [[before|null, after|null]..]}
          {"lost": true}                        nobody follows the tailnet now
          {"beat": true}
    up    {"again": true}                       tell me the whole netmap

The worker's end trusts its netmap for SILENCE_SECONDS after each message, by the clock and not by a timer: a worker or a
feeder that hangs, is frozen or dies makes it unknown, and then only a whole netmap counts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import structlog

from elizacloud.tailnet.netmap import Netmap, Peer, PeerChange
from elizacloud.tailnet.watcher import ChangeCallback, NetmapWatcher

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 5.0

Message = Mapping[str, Any]
Send = Callable[[Message], None]

log = structlog.get_logger()


class NetmapFeed:
    """The watching end. `run()` is the owner's task; what `subscribe` is given must not block or raise."""

    def __init__(self, watcher: NetmapWatcher, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._watcher = watcher
        self._clock = clock
        self._beat_at = clock()
        self._subscribers: list[Send] = []
        watcher.on_change(self._changed)
        watcher.on_known(self._known)
        self._told_known = watcher.netmap.known

    def subscribe(self, send: Send) -> None:
        self._subscribers.append(send)
        self.tell_all(send)

    def unsubscribe(self, send: Send) -> None:
        self._subscribers.remove(send)

    def tell_all(self, send: Send) -> None:
        """Send the netmap as it is now."""
        self._check_own_pause()
        netmap = self._watcher.netmap
        if netmap.known:
            send({"self": sorted(netmap.self_ips), "peers": [_to_json(peer) for peer in netmap]})
        else:
            send({"lost": True})

    async def run(self) -> NoReturn:
        while True:
            self._check_own_pause()
            self._beat_at = self._clock()
            self._send({"beat": True})
            await asyncio.sleep(BEAT_SECONDS)

    def _check_own_pause(self) -> None:
        """A process that was frozen may wake with a netmap of long ago, and its successor still unread."""
        if self._clock() - self._beat_at > SILENCE_SECONDS:
            self._beat_at = self._clock()
            self._watcher.distrust()

    def _changed(self, changes: tuple[PeerChange, ...]) -> None:
        if self._told_known and changes:
            pairs = [[_to_json(change.before), _to_json(change.after)] for change in changes]
            self._send({"self": sorted(self._watcher.netmap.self_ips), "changes": pairs})

    def _known(self, known: bool) -> None:
        self._told_known = known
        for send in tuple(self._subscribers):
            self.tell_all(send)

    def _send(self, message: Message) -> None:
        for send in tuple(self._subscribers):
            send(message)


class NetmapFollower:
    """The worker's end: `hear` each message in the step that read it, and `run()`, which notices silence.

    `on_change` is called in the step that changed `netmap`, as by a NetmapWatcher; with no change when it became known.
    """

    def __init__(
        self,
        send: Send,
        *,
        silence_seconds: float = SILENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.netmap = Netmap(trusted_seconds=silence_seconds, clock=clock)
        self._send = send
        self._callbacks: list[ChangeCallback] = []
        self._silence_seconds = silence_seconds
        self._known = asyncio.Event()

    def on_change(self, callback: ChangeCallback) -> None:
        """Call this at each change from now on; it must not block or raise."""
        self._callbacks.append(callback)

    def hear(self, message: Message) -> None:
        """Raises KeyError, TypeError or ValueError for what no feed sends."""
        netmap = self.netmap
        if "peers" in message:
            changes = netmap.replace(message["self"], [_from_json(peer) for peer in message["peers"]])
            self._known.set()
            self._tell(changes)
        elif "lost" in message:
            self.lose("the tailnet is not followed")
        elif not netmap.known:
            if self._known.is_set():
                self.lose("nothing was heard of it for too long")
                self._send({"again": True})
        else:
            netmap.heard()
            if "changes" in message:
                pairs = [(_from(before), _from(after)) for before, after in message["changes"]]
                self._tell(netmap.change(message["self"], [PeerChange(*pair) for pair in pairs]))

    def lose(self, reason: str) -> None:
        """Trust nothing until the next whole netmap."""
        self.netmap.lost()
        if self._known.is_set():
            self._known.clear()
            log.warning("netmap not current", reason=reason)

    async def until_known(self) -> None:
        await self._known.wait()

    async def run(self) -> NoReturn:
        """Say it when the feed falls silent, and ask for the netmap again."""
        while True:
            await asyncio.sleep(self._silence_seconds / 4)
            if self._known.is_set() and not self.netmap.known:
                self.lose("the relay's supervisor is silent")
                self._send({"again": True})

    def _tell(self, changes: tuple[PeerChange, ...]) -> None:
        for callback in self._callbacks:
            callback(changes)


def _to_json(peer: Peer | None) -> list[Any] | None:
    if peer is None:
        return None
    return [peer.node_id, peer.ips, sorted(peer.tags), peer.node_key, peer.name, peer.online]


def _from(value: list[Any] | None) -> Peer | None:
    return None if value is None else _from_json(value)


def _from_json(value: list[Any]) -> Peer:
    node_id, ips, tags, node_key, name, online = value
    return Peer(node_id, tuple(ips), frozenset(tags), node_key, name, online)
