"""A relay worker's end of the link: it follows the table, answers probes and drains, and survives without it.

Order at the start: the table from disk, if there is one, then a connection, tried again for ever with growing delays.
While the link is down the last table stays in use; known tokens are honoured for the offline grace and no longer.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import structlog

from elizacloud.cipher import Cipher
from elizacloud.errors import Invalid, Unauthenticated, Unavailable
from elizacloud.processes.backoff import Backoff
from elizacloud.relay.link import messages
from elizacloud.relay.link.snapshot import SnapshotFile
from elizacloud.upstreams import PeerSeen, Probe, Redemption, Upstream, UpstreamTable, WakeRefusal

logger = structlog.get_logger()

_BACKOFF = Backoff(first_seconds=0.05, cap_seconds=2.0, reset_after_seconds=10.0)
_CONNECT_SECONDS = 5.0
_REDEEM_SECONDS = 5.0


class Worker(Protocol):
    """What the link asks of the worker it belongs to."""

    async def probe(self, upstream: Upstream, *, within_seconds: float) -> Probe:
        """Reach the agent over the worker's own path; never raises an Error, the answer says what was wrong."""

    async def drained(self, agent_id: str, *, within_seconds: float) -> bool:
        """Wait until nothing of the agent is in flight; False when the time was too short."""

    def table_changed(self) -> None:
        """The table is another now: upstreams may have gone, come or changed."""

    def linked_again(self) -> None:
        """What was told to the control plane before may be lost."""

    def wake_refused(self, refusal: WakeRefusal) -> None:
        """Nobody wakes the agent for the requests that are held."""


class LinkClient:
    """`table` is the one object that the whole worker reads; it changes in place, between two events of the loop."""

    def __init__(
        self,
        socket_path: Path,
        snapshot_path: Path,
        cipher: Cipher,
        *,
        name: str,
        offline_grace_seconds: float,
        clock: Callable[[], float] = time.time,
        silence_seconds: float = messages.SILENCE_SECONDS,
    ) -> None:
        self.table = UpstreamTable()
        self.linked = False
        self._socket_path = socket_path
        self._file = SnapshotFile(snapshot_path, cipher)
        self._name = name
        self._grace_seconds = offline_grace_seconds
        self._clock = clock
        self._silence_seconds = silence_seconds
        self._heard_at: float | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._unsaved = asyncio.Event()
        self._numbers = itertools.count(1)
        self._redeeming: dict[int, asyncio.Future[messages.Redeemed | None]] = {}

    @property
    def silent_seconds(self) -> float:
        """How long ago the control plane was heard to be well; infinite when never."""
        return float("inf") if self._heard_at is None else max(0.0, self._clock() - self._heard_at)

    @property
    def tokens_honoured(self) -> bool:
        return self._heard_at is not None and self._clock() - self._heard_at <= self._grace_seconds

    async def run(self, worker: Worker) -> None:
        """Follow the control plane until cancelled."""
        if (saved := self._file.load()) is not None:
            snapshot, self._heard_at = saved
            self.table.replace(snapshot)
            logger.info("table loaded from disk", revision=snapshot.revision, silent_seconds=round(self.silent_seconds))
            worker.table_changed()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._save_changes(), name="save table")
            failures = 0
            while True:
                began = time.monotonic()
                reason = await self._follow(worker)
                failures = _BACKOFF.failures_after(failures, time.monotonic() - began)
                if failures == 1 or failures % 20 == 0:
                    logger.warning("no link to the control plane", reason=reason, silent_seconds=self.silent_seconds)
                await asyncio.sleep(_BACKOFF.delay_seconds(failures, random.random()))

    async def redeem(self, ticket_sha256: str, agent_id: str, *, session: bool) -> Redemption:
        """Have the control plane consume a ticket. With `session`, the new session is in the table when this returns.

        Raises Unauthenticated `ticket_used` when it is unknown, used, expired or for another agent, and Unavailable
        when the control plane does not answer: whether the ticket is used up is then not known.
        """
        if not self.linked:
            raise _unavailable()
        number, answer = next(self._numbers), asyncio.get_running_loop().create_future()
        self._redeeming[number] = answer
        try:
            async with asyncio.timeout(_REDEEM_SECONDS):
                self._send(messages.AskRedeem(number, ticket_sha256, agent_id, session))
                redeemed: messages.Redeemed | None = await answer
        except TimeoutError:
            raise _unavailable() from None
        finally:
            del self._redeeming[number]
        if redeemed is None:
            raise _unavailable()
        if redeemed.redemption is not None:
            return redeemed.redemption
        if redeemed.code == "ticket_used":
            raise Unauthenticated(redeemed.error, code=redeemed.code)
        raise Unavailable(redeemed.error, code=redeemed.code, retry_after_seconds=5)

    # What a worker tells; dropped while there is no link, since each is only a hint.

    def tell_peer(self, peer: PeerSeen) -> None:
        self._send(messages.Seen(peer))

    def tell_wake(self, agent_id: str, poll_gap_seconds: float | None = None) -> None:
        self._send(messages.Wake(agent_id, poll_gap_seconds))

    def tell_uses(self, agents: tuple[str, ...]) -> None:
        if agents:
            self._send(messages.Used(agents))

    def tell_session_ended(self, session_sha256: str) -> None:
        self._send(messages.EndSession(session_sha256))

    def tell_unknown_key(self, issuer: str) -> None:
        self._send(messages.SeekKeys(issuer))

    def say_goodbye(self) -> None:
        self._send(messages.Goodbye())

    def _send(self, message: messages.Up) -> None:
        if self._writer is not None and not self._writer.transport.is_closing():
            self._writer.write(messages.encode(message))

    async def _follow(self, worker: Worker) -> str:
        """One connection, to its end; return why it ended."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                reader, writer = await asyncio.open_unix_connection(
                    str(self._socket_path), limit=messages.MAX_DOWN_BYTES
                )
        except (OSError, TimeoutError) as error:
            return str(error) or "timeout"
        self._writer = writer
        self._send(messages.Hello(self._name))
        try:
            async with asyncio.TaskGroup() as tasks:
                beat = tasks.create_task(self._beat(), name="link heartbeat")
                answering: set[asyncio.Task[None]] = set()
                try:
                    return await self._read(reader, worker, tasks, answering)
                finally:
                    beat.cancel()
                    for task in answering:
                        task.cancel()
        finally:
            self.linked = False
            self._writer = None
            for answer in self._redeeming.values():
                if not answer.done():
                    answer.set_result(None)
            writer.close()  # after what was said, such as goodbye

    async def _read(
        self, reader: asyncio.StreamReader, worker: Worker, tasks: asyncio.TaskGroup, answering: set[asyncio.Task[None]]
    ) -> str:
        try:
            while (line := await messages.read_line(reader, within_seconds=self._silence_seconds)) is not None:
                match messages.decode_down(line):
                    case messages.Table(snapshot, read_seconds_ago):
                        self.table.replace(snapshot)
                        if not self.linked:
                            logger.info("linked to the control plane", epoch=snapshot.epoch, revision=snapshot.revision)
                            worker.linked_again()
                        self.linked = True
                        if read_seconds_ago is not None:
                            self._heard_at = self._clock() - read_seconds_ago
                        self._unsaved.set()
                        worker.table_changed()
                    case messages.Changed(change):
                        if self.table.apply(change):
                            self._unsaved.set()
                            worker.table_changed()
                        else:
                            self._send(messages.Resync())
                    case messages.Heartbeat():
                        self._heard_at = self._clock()
                        self._file.heard(self._heard_at)
                    case messages.Alive():
                        pass
                    case messages.AskProbe() as asked:
                        task = tasks.create_task(self._probe(worker, asked), name=f"probe {asked.upstream.agent_id}")
                        answering.add(task)
                        task.add_done_callback(answering.discard)
                    case messages.RefuseWake(refusal):
                        worker.wake_refused(refusal)
                    case messages.Redeemed() as redeemed:
                        waiting = self._redeeming.get(redeemed.id)
                        if waiting is not None and not waiting.done():
                            waiting.set_result(redeemed)
                    case messages.AskDrain() as asked_drain:
                        task = tasks.create_task(self._drain(worker, asked_drain), name=f"drain {asked_drain.agent_id}")
                        answering.add(task)
                        task.add_done_callback(answering.discard)
        except Invalid as error:
            return str(error)
        except (OSError, TimeoutError) as error:
            return str(error) or "silent for too long"
        return "end of stream"

    async def _probe(self, worker: Worker, asked: messages.AskProbe) -> None:
        probe = await worker.probe(asked.upstream, within_seconds=asked.within_seconds)
        self._send(messages.ProbeDone(asked.id, probe))

    async def _drain(self, worker: Worker, asked: messages.AskDrain) -> None:
        idle = await worker.drained(asked.agent_id, within_seconds=asked.within_seconds)
        self._send(messages.DrainDone(asked.id, idle))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(messages.HEARTBEAT_SECONDS)
            self._send(messages.Heartbeat())

    async def _save_changes(self) -> None:
        """Write the newest table whenever it changed; changes that come during a write share the next one."""
        while True:
            await self._unsaved.wait()
            self._unsaved.clear()
            snapshot = self.table.snapshot()
            try:
                await asyncio.to_thread(self._file.save, snapshot, self._heard_at or 0.0)
            except OSError as error:
                logger.error(
                    "the table cannot be saved: a worker started in an outage would not serve", reason=str(error)
                )


def _unavailable() -> Unavailable:
    return Unavailable(
        "cannot take the ticket: the control plane does not answer; try again",
        code="control_plane_unavailable",
        retry_after_seconds=5,
    )
