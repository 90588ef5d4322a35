"""The control plane's end of the link: it keeps the table and tells every relay worker (implements upstreams.Relays).

A change is applied here first and sent to every linked worker in the same order; a worker that cannot keep up is cut
off and starts again with a snapshot. Heartbeats go out only after `check` succeeded (a good database read), so that a
control plane that lost its database ages as one that is down; its links stay, and each table says how old it is.
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import stat
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from elizacloud.errors import Error, Invalid, Misconfigured, TailnetUnavailable
from elizacloud.relay.link import messages
from elizacloud.relay.link.errands import Errands, Registrar
from elizacloud.relay.link.linked import Answers, LinkedWorker, Lost
from elizacloud.upstreams import (
    AssertionKey,
    Change,
    KnownAgent,
    KnownIssuer,
    KnownToken,
    PeerSeen,
    Probe,
    Relays,
    Snapshot,
    Upstream,
    UpstreamTable,
    WakeRefusal,
)

logger = structlog.get_logger()

LEAVING = frozenset({"deleting", "tombstone", "gone"})
"""States whose description a withdrawal takes away too; any other one stays, so that callers learn why they must wait."""

_MAX_QUIET_HEARTBEATS = 1.5
"""After this many times the time between two heartbeats workers are told at least that we are there."""

_MAX_FORGOTTEN = 10_000
"""Expired tokens in one change; the rest goes with the next one."""


class Listener(Registrar, Protocol):
    """Who is told what workers see and do. Called on the event loop; must not block."""

    def peer_seen(self, peer: PeerSeen) -> None: ...

    def wake(self, agent_id: str, poll_gap_seconds: float | None) -> None: ...

    def used(self, agent_ids: tuple[str, ...]) -> None: ...


class Hub:
    """`epoch` must differ at every start of the control plane. Fill the table before `serve`, so that no worker ever
    sees half of it."""

    def __init__(
        self,
        epoch: str,
        listener: Listener,
        *,
        check: Callable[[], Awaitable[None]] | None = None,
        heartbeat_seconds: float = messages.HEARTBEAT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._listener = listener
        self._check = check
        self._heartbeat_seconds = heartbeat_seconds
        self._clock = clock
        self._read_at: float | None = None
        """When the database was last read."""
        self._beaten = asyncio.Event()
        self._table = UpstreamTable(epoch=epoch)
        self._workers: dict[str, LinkedWorker] = {}
        self._lost: dict[str, Lost] = {}
        """They may still serve."""
        self._answers = Answers()
        self._errands = Errands(listener)
        self._changed = asyncio.Condition()

    # upstreams.Relays

    def load(self, upstreams: Iterable[Upstream], agents: Iterable[KnownAgent], tokens: Iterable[KnownToken]) -> None:
        """Replace the whole table but whom it trusts, as one revision, by what was read from the database just now."""
        self._read_at = self._clock()
        now = self.snapshot()
        self._table.replace(
            replace(
                now,
                revision=now.revision + 1,
                upstreams=tuple(upstreams),
                agents=tuple(agents),
                tokens=tuple(tokens),
            )
        )
        for worker in tuple(self._workers.values()):
            self._send_table(worker)

    def publish(self, upstream: Upstream) -> None:
        self._tell(upstreams=(upstream,))

    def describe(self, agents: Iterable[KnownAgent]) -> None:
        self._tell(agents=tuple(agents))

    async def withdraw(self, agent_id: str, *, within_seconds: float) -> bool:
        known = self._table.agents.get(agent_id)
        if known is None or known.state in LEAVING:
            self._tell(withdrawn_agents=(agent_id,))
        try:
            async with asyncio.timeout(within_seconds):
                return await self._drained(agent_id, within_seconds)
        except TimeoutError:
            return False

    async def probe(self, upstream: Upstream, *, within_seconds: float) -> Probe:
        if not self._workers:
            raise TailnetUnavailable(
                "cannot probe the agent: no relay worker is linked to the control plane; start one"
            )
        worker = secrets.choice(tuple(self._workers.values()))
        try:
            async with asyncio.timeout(within_seconds + self._heartbeat_seconds):
                with self._answers.expected(worker) as (number, answer):
                    worker.send(messages.AskProbe(number, upstream, within_seconds))
                    done = await answer
        except TimeoutError:
            raise TailnetUnavailable("cannot probe the agent: the relay worker did not answer in time") from None
        if not isinstance(done, messages.ProbeDone):
            raise TailnetUnavailable("cannot probe the agent: the link to the relay worker broke")
        return done.probe

    def refuse_wake(self, refusal: WakeRefusal) -> None:
        for worker in tuple(self._workers.values()):
            worker.send(messages.RefuseWake(refusal))

    def add_token(self, token: KnownToken) -> None:
        self._tell(tokens=(token,))

    def revoke_token(self, token_id: str) -> None:
        self._tell(revoked_tokens=(token_id,))

    def forget_expired(self, now: datetime) -> None:
        if expired := self._table.expired_tokens(now):
            self._tell(revoked_tokens=expired[:_MAX_FORGOTTEN])

    def trust(self, issuers: Iterable[KnownIssuer], assertion_key: AssertionKey | None) -> None:
        self._tell(issuers=tuple(issuers), assertion_key=assertion_key)

    # The socket

    @asynccontextmanager
    async def serve(self, path: Path) -> AsyncIterator[None]:
        """Accept workers at this socket (0600) while the context lasts. Raises Misconfigured when it cannot."""
        listener = _listen(path)
        server = await asyncio.start_unix_server(self._accept, sock=listener, limit=messages.MAX_UP_BYTES)
        try:
            async with asyncio.TaskGroup() as tasks:
                beat = tasks.create_task(self._beat(), name="link heartbeat")
                staying = tasks.create_task(self._stay_linked(), name="link without heartbeats")
                try:
                    yield
                finally:
                    beat.cancel()
                    staying.cancel()
        finally:
            server.close()
            self._errands.cancel()
            for worker in tuple(self._workers.values()):
                worker.cut("the control plane stops")
            path.unlink(missing_ok=True)

    def snapshot(self) -> Snapshot:
        """The table as every worker is told it now."""
        return self._table.snapshot()

    @property
    def workers(self) -> tuple[str, ...]:
        """Names of the workers that hold a link now."""
        return tuple(self._workers)

    async def wait_for_worker(self, *, within_seconds: float) -> None:
        """Return when at least one worker is linked; raise TailnetUnavailable when there is none in time."""
        try:
            async with asyncio.timeout(within_seconds), self._changed:
                await self._changed.wait_for(lambda: bool(self._workers))
        except TimeoutError:
            raise TailnetUnavailable("cannot reach the tailnet: no relay worker is linked; start one") from None

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        worker = LinkedWorker(reader, writer)
        try:
            hello = await worker.read_hello()
            await self._join(worker)
            logger.info("relay worker linked", worker=hello.worker, pid=worker.process.pid)
            while (message := await worker.read()) is not None:
                self._heard(worker, message)
            reason = "end of stream"
        except Invalid as error:
            reason = str(error)
        except (OSError, TimeoutError) as error:
            reason = str(error) or "silent for too long"
        finally:
            worker.cut("")
            await self._leave(worker)
        logger.info("relay worker unlinked", worker=worker.name, reason=reason)

    async def _join(self, worker: LinkedWorker) -> None:
        earlier = self._workers.get(worker.name)
        if earlier is not None:
            earlier.cut("a worker of the same name linked again")
        self._lost.pop(worker.name, None)
        self._workers[worker.name] = worker
        self._send_table(worker)
        async with self._changed:
            self._changed.notify_all()

    async def _leave(self, worker: LinkedWorker) -> None:
        self._answers.lose(worker)
        if self._workers.get(worker.name) is worker:
            del self._workers[worker.name]
            if not worker.said_goodbye:
                self._lost[worker.name] = Lost(worker.process, self._clock())
        async with self._changed:
            self._changed.notify_all()

    def _heard(self, worker: LinkedWorker, message: messages.Up) -> None:
        match message:
            case messages.ProbeDone() | messages.DrainDone():
                self._answers.give(worker, message.id, message)
            case messages.AskRedeem():
                self._errands.redeem(worker, message)
            case messages.EndSession():
                self._errands.end_session(self._table.tokens.get(message.session_sha256))
            case messages.SeekKeys():
                self._errands.seek_keys(message.issuer)
            case messages.Resync():
                self._send_table(worker)
            case messages.Seen():
                self._listener.peer_seen(message.peer)
            case messages.Wake():
                self._listener.wake(message.agent_id, message.poll_gap_seconds)
            case messages.Used():
                self._listener.used(message.agents)
            case messages.Goodbye():
                worker.said_goodbye = True
            case messages.Heartbeat() | messages.Hello():
                pass

    # Telling and asking

    def _send_table(self, worker: LinkedWorker) -> None:
        age = None if self._read_at is None else self._clock() - self._read_at
        worker.send(messages.Table(self.snapshot(), 0.0 if self._check is None else age))

    def _tell(
        self,
        *,
        upstreams: tuple[Upstream, ...] = (),
        agents: tuple[KnownAgent, ...] = (),
        tokens: tuple[KnownToken, ...] = (),
        withdrawn_agents: tuple[str, ...] = (),
        revoked_tokens: tuple[str, ...] = (),
        issuers: tuple[KnownIssuer, ...] = (),
        assertion_key: AssertionKey | None = None,
    ) -> None:
        change = Change(
            self._table.revision + 1,
            upstreams,
            agents,
            tokens,
            withdrawn_agents,
            revoked_tokens,
            issuers,
            assertion_key,
        )
        self._table.apply(change)
        for worker in tuple(self._workers.values()):
            worker.send(messages.Changed(change))

    async def _drained(self, agent_id: str, within_seconds: float) -> bool:
        async with self._changed:
            # A worker whose link broke may still carry requests: it is waited for, unless it is gone.
            await self._changed.wait_for(lambda: not self._missing())
        async with asyncio.TaskGroup() as tasks:
            asked = [
                tasks.create_task(self._ask_drain(worker, agent_id, within_seconds), name=f"drain at {worker.name}")
                for worker in tuple(self._workers.values())
            ]
        return all(task.result() for task in asked)

    async def _ask_drain(self, worker: LinkedWorker, agent_id: str, within_seconds: float) -> bool:
        with self._answers.expected(worker) as (number, answer):
            worker.send(messages.AskDrain(number, agent_id, within_seconds))
            done = await answer
        return isinstance(done, messages.DrainDone) and done.idle

    def _missing(self) -> bool:
        now = self._clock()
        self._lost = {name: lost for name, lost in self._lost.items() if lost.may_serve(now)}
        return bool(self._lost)

    async def _beat(self) -> None:
        while True:
            try:
                if self._check is not None:
                    await self._check()
            except Error as error:
                logger.warning("no heartbeat to the relays: the control plane is not well", reason=str(error))
            else:
                self._read_at = self._clock()
                self._beaten.set()
                for worker in tuple(self._workers.values()):
                    worker.send(messages.Heartbeat())
            async with self._changed:
                self._changed.notify_all()  # A lost worker may have ended.
            await asyncio.sleep(self._heartbeat_seconds)

    async def _stay_linked(self) -> None:
        """Keep the links of a control plane that is not well, also while a check waits for a database that is silent."""
        while True:
            self._beaten.clear()
            try:
                async with asyncio.timeout(self._heartbeat_seconds * _MAX_QUIET_HEARTBEATS):
                    await self._beaten.wait()
            except TimeoutError:
                for worker in tuple(self._workers.values()):
                    worker.send(messages.Alive())


def _listen(path: Path) -> socket.socket:
    """A bound socket that only our own user can connect to: the mode is set before it listens."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and stat.S_ISSOCK(path.stat().st_mode):
            path.unlink()
        listener.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        listener.close()
        raise Misconfigured(
            f"cannot listen for relays at {path}: {error.strerror}; choose another link_socket"
        ) from error
    return listener


if TYPE_CHECKING:
    _: type[Relays] = Hub
