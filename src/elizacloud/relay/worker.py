"""One relay worker: listening sockets, the link, the netmap and the path to agents and API, put together.

`run` serves until it is cancelled; `drain` first lets what is in flight finish. The listening sockets are shared with
other processes, so that a restart of a worker drops no connection that waits in their queues.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog

from elizacloud.model import TAG_AGENT
from elizacloud.relay import probe as probing
from elizacloud.relay.accepting import Acceptor, Handshakes
from elizacloud.relay.access_log import AccessLog
from elizacloud.relay.callers.access import Access
from elizacloud.relay.callers.assertion import Assertions
from elizacloud.relay.callers.origins import Origins
from elizacloud.relay.callers.session import Sessions
from elizacloud.relay.callers.tickets import Tickets
from elizacloud.relay.destination import ToAgents
from elizacloud.relay.destinations import Destinations
from elizacloud.relay.dialling.dial import AgentDialer, UnixDialer
from elizacloud.relay.dialling.pool import Pool
from elizacloud.relay.edge import Edge
from elizacloud.relay.front import Fronts
from elizacloud.relay.headers.cors import Cors
from elizacloud.relay.headers.forwarded import Proxies
from elizacloud.relay.limits import Limits, LimitSettings
from elizacloud.relay.link.client import LinkClient
from elizacloud.relay.metrics import Metrics, State
from elizacloud.relay.reach import Reach
from elizacloud.relay.server import ClientConnection
from elizacloud.relay.server_settings import ServerSettings
from elizacloud.relay.surroundings import Surroundings
from elizacloud.relay.throttle import Throttle
from elizacloud.relay.tls import ServerCertificate
from elizacloud.relay.turns import Turns
from elizacloud.tailnet.netmap import Netmap, PeerChange
from elizacloud.upstreams import PeerSeen, Probe, Upstream, WakeRefusal

logger = structlog.get_logger()

_TICK_SECONDS = 1.0
_CLOSE_SECONDS = 1.0
LINGER_SECONDS = 1.0
"""A request that is on its way while its idle connection is to be closed comes within this time."""


async def _at_once() -> None: ...


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """What a worker needs of the settings; the names are theirs."""

    relay_domain: str
    api_socket: Path
    cell_id: str
    public_url: str | None = None
    headers_timeout_seconds: float = 15.0
    dial_timeout_seconds: float = 5.0
    first_byte_timeout_seconds: float = 60.0
    standstill_seconds: float = 600.0
    """For so long an upstream may take nothing of a body. Buffers on the way empty in steps of up to some megabytes, so that
    one that reads ten kilobytes a second seems to stand still for minutes."""
    wake_hold_seconds: float = 8.0
    drain_seconds: float = 20.0
    cors_origins: tuple[str, ...] = ()
    trusted_proxies: tuple[str, ...] = ()
    access_log: float = 1.0
    body_timeout_seconds: float = 30.0
    body_bytes_per_second: int = 64
    max_body_bytes: int | None = None
    limits: LimitSettings = field(default_factory=LimitSettings)


class Worker:
    """`netmap` is one that a NetmapWatcher keeps; give its `on_change` our `netmap_changed` before it runs."""

    def __init__(
        self,
        settings: WorkerSettings,
        link: LinkClient,
        netmap: Netmap,
        dialer: AgentDialer,
        metrics: Metrics,
        *,
        find_path: probing.FindPath = probing.no_wait,
        access_log: AccessLog | None = None,
        certificate: ServerCertificate | None = None,
    ) -> None:
        self._settings = settings
        self._link = link
        self._netmap = netmap
        self._metrics = metrics
        self._find_path = find_path
        self._certificate = certificate
        self._reach = Reach(
            link.table,
            netmap,
            dialer,
            link,
            metrics,
            dial_timeout_seconds=settings.dial_timeout_seconds,
            hold_seconds=settings.wake_hold_seconds,
            dials_per_agent=settings.limits.dials_per_agent,
        )
        self._api = Pool(UnixDialer(settings.api_socket))
        self._limits = Limits(settings.limits)
        fronts = Fronts(settings.relay_domain)
        self._edge = Edge(Cors(settings.cors_origins, fronts.is_agents_host), Proxies(settings.trusted_proxies))
        self._access_log = access_log or AccessLog(settings.access_log)
        origins, tickets = Origins(settings.cors_origins, settings.public_url), Tickets(link)
        self._access = Access(link, origins)
        throttle = Throttle(settings.limits.agent_bytes_per_second, settings.limits.owner_bytes_per_second)
        self._destinations = Destinations(
            fronts,
            ToAgents(self._reach, self._limits, throttle, self._access, Assertions(link.table)),
            Sessions(tickets, origins, relay_domain=settings.relay_domain, public_url=settings.public_url),
            tickets,
            self._api,
        )
        self._surroundings = Surroundings(
            self, metrics, self._access_log, Turns(), settings.first_byte_timeout_seconds, settings.standstill_seconds
        )
        self._server_settings = ServerSettings(
            settings.headers_timeout_seconds,
            body_timeout_seconds=settings.body_timeout_seconds,
            body_bytes_per_second=settings.body_bytes_per_second,
            max_body_bytes=settings.max_body_bytes,
        )
        self._clients: set[ClientConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._acceptors: list[Acceptor] = []
        self._linger_seconds: float | None = None
        """Set while draining."""
        self._no_clients = asyncio.Event()
        self._no_clients.set()
        self._table_known = asyncio.Event()
        self._losses_seen = 0
        metrics.state = self._state

    async def run(
        self,
        sockets: Sequence[socket.socket],
        *,
        until: Callable[[], Awaitable[None]] = _at_once,
        started: Callable[[], None] = lambda: None,
    ) -> None:
        """Follow the link and, once `until` has returned, serve on these listening sockets. When cancelled, end what is
        left at once. The sockets are closed here when no more is taken from them, which others that have them do not feel."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._link.run(self), name="link")
                tasks.create_task(self._tick(), name="relay tick")
                tasks.create_task(self._access_log.run(), name="access log")
                await until()
                self._accept(sockets)
                started()
        finally:
            self._stop_accepting()
            for acceptor in self._acceptors:
                acceptor.abort()
            for client in tuple(self._clients):
                client.abort()
            for task in tuple(self._tasks):
                task.cancel()
            self._reach.close()
            self._api.kill("the relay stops")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CLOSE_SECONDS):
                    await self._no_clients.wait()

    def _accept(self, sockets: Sequence[socket.socket]) -> None:
        for listener in sockets:
            acceptor = Acceptor(
                listener,
                self._client,
                handshakes=self._handshakes_at(listener),
                on_arrived=self._look_for_clients,
            )
            self._acceptors.append(acceptor)
            acceptor.start()

    def _handshakes_at(self, listener: socket.socket) -> Handshakes | None:
        if self._certificate is None or listener.family == socket.AF_UNIX:
            return None
        return Handshakes(
            self._certificate.context,
            self._settings.headers_timeout_seconds,
            partial(self._edge.proxies.peer, secure=True),
            self._limits.handshake_began,
            self._limits.handshake_ended,
        )

    async def until_table_known(self) -> None:
        """Return when a table has come from the control plane or from disk."""
        await self._table_known.wait()

    async def drain(self, *, linger_seconds: float = LINGER_SECONDS) -> bool:
        """Take no new connection, end the present ones as soon as clients do not mind; False when time ran out.

        A client learns by `Connection: close` in its last answer; one that is idle has `linger_seconds` for one more request.
        """
        self._linger_seconds = linger_seconds
        self._stop_accepting()
        for client in tuple(self._clients):
            client.drain(linger_seconds)
        self._look_for_clients()
        try:
            async with asyncio.timeout(self._settings.drain_seconds):
                await self._no_clients.wait()
        except TimeoutError:
            logger.warning("connections are cut: they did not end in time", connections=len(self._clients))
            return False
        finally:
            self._link.say_goodbye()
        return True

    def netmap_changed(self, changes: tuple[PeerChange, ...]) -> None:
        """End what no longer fits, and tell the control plane who appeared. Call it in the step that changed the netmap."""
        self._reach.netmap_changed(changes)
        for change in changes:
            peer = change.after
            if peer is None or TAG_AGENT not in peer.tags:
                continue
            if change.identity or (change.before is not None and change.before.online != peer.online):
                self._link.tell_peer(
                    PeerSeen(self._settings.cell_id, peer.node_id, peer.ips, tuple(sorted(peer.tags)), peer.online)
                )

    def _state(self) -> State:
        """Called from the thread that collects metrics: it only looks."""
        connections = {}
        for kind, (idle, busy) in (("agent", self._reach.connections()), ("api", self._api.connections())):
            connections[kind, "idle"], connections[kind, "busy"] = idle, busy
        return State(
            connections,
            len(self._link.table.upstreams),
            self._link.linked,
            self._link.silent_seconds,
            self._netmap.known,
            len(self._netmap),
        )

    # What the link asks

    async def probe(self, upstream: Upstream, *, within_seconds: float) -> Probe:
        return await probing.probe(self._reach, upstream, within_seconds=within_seconds, find_path=self._find_path)

    async def drained(self, agent_id: str, *, within_seconds: float) -> bool:
        return await self._reach.drained(agent_id, within_seconds=within_seconds)

    def table_changed(self) -> None:
        self._table_known.set()
        self._reach.table_changed()
        if self._link.table.losses != self._losses_seen:
            self._losses_seen = self._link.table.losses
            self._end_what_may_not_go_on()

    def linked_again(self) -> None:
        self._reach.linked_again()

    def wake_refused(self, refusal: WakeRefusal) -> None:
        self._reach.wake_refused(refusal)

    def _end_what_may_not_go_on(self) -> None:
        """Requests, streams and upgraded connections whose credential was revoked or has expired."""
        for client in tuple(self._clients):
            try:
                client.recheck(self._access.ended)
            except Exception as error:  # one client's, which must not end everybody else's
                logger.error("a connection is cut: its credential could not be looked at again", exc_info=error)
                client.abort()

    # surroundings.Tasks

    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a task of the relay failed", task=task.get_name(), exc_info=error)

    # Clients

    def _client(self) -> ClientConnection:
        return ClientConnection(
            self._edge,
            self._destinations,
            self._limits,
            self._surroundings,
            self._server_settings,
            self._came,
            self._gone,
        )

    def _came(self, client: ClientConnection) -> None:
        self._clients.add(client)
        self._no_clients.clear()
        if self._linger_seconds is not None:  # it was in its TLS handshake
            client.drain(self._linger_seconds)

    def _gone(self, client: ClientConnection) -> None:
        self._clients.discard(client)
        self._look_for_clients()

    def _look_for_clients(self) -> None:
        if self._clients or any(acceptor.arriving for acceptor in self._acceptors):
            self._no_clients.clear()
        else:
            self._no_clients.set()

    def _stop_accepting(self) -> None:
        for acceptor in self._acceptors:
            acceptor.stop()

    async def _tick(self) -> None:
        """Once a second: let go of idle connections, see a renewed certificate, tell which agents are in use."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self._reach.sweep()
            self._api.sweep()
            self._end_what_may_not_go_on()
            if self._certificate is not None:
                self._certificate.refresh()
            self._link.tell_uses(self._reach.uses.take())
