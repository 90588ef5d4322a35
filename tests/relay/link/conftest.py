import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from elizacloud.cipher import Cipher, new_secret_key
from elizacloud.errors import Unauthenticated
from elizacloud.relay.link.client import LinkClient
from elizacloud.relay.link.messages import SILENCE_SECONDS
from elizacloud.upstreams import PeerSeen, Probe, Redemption, Upstream, WakeRefusal


class Heard:
    """A listener that keeps what it was told."""

    def __init__(self) -> None:
        self.peers: list[PeerSeen] = []
        self.wakes: list[str] = []
        self.poll_gaps: list[float | None] = []
        self.uses: list[str] = []
        self.any = asyncio.Event()
        self.tickets: dict[tuple[str, str], Redemption] = {}
        """By hash and agent; each is given once."""
        self.asked: list[tuple[str, str, bool]] = []
        self.ended: list[str] = []
        self.sought: list[str] = []
        self.answering = asyncio.Event()
        self.answering.set()

    async def redeem(self, ticket_sha256: str, agent_id: str, *, session: bool) -> Redemption:
        self.asked.append((ticket_sha256, agent_id, session))
        self.any.set()
        await self.answering.wait()
        redemption = self.tickets.pop((ticket_sha256, agent_id), None)
        if redemption is None:
            raise Unauthenticated("cannot take this ticket: it was used", code="ticket_used")
        return redemption

    async def seek_keys(self, issuer: str) -> None:
        self.sought.append(issuer)
        self.any.set()

    async def end_session(self, session_sha256: str) -> None:
        self.ended.append(session_sha256)
        self.any.set()

    def peer_seen(self, peer: PeerSeen) -> None:
        self.peers.append(peer)
        self.any.set()

    def wake(self, agent_id: str, poll_gap_seconds: float | None) -> None:
        self.wakes.append(agent_id)
        self.poll_gaps.append(poll_gap_seconds)
        self.any.set()

    def used(self, agent_ids: tuple[str, ...]) -> None:
        self.uses += agent_ids
        self.any.set()


class FakeWorker:
    """A worker's answers to the link, decided by the test; `changes` counts what the table went through."""

    def __init__(self) -> None:
        self.changed = asyncio.Condition()
        self.changes = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.answer = Probe(200, True)
        self.probed: list[Upstream] = []
        self.links = 0
        self.refusals: list[WakeRefusal] = []

    async def probe(self, upstream: Upstream, *, within_seconds: float) -> Probe:
        self.probed.append(upstream)
        return self.answer

    async def drained(self, agent_id: str, *, within_seconds: float) -> bool:
        try:
            async with asyncio.timeout(within_seconds):
                await self.idle.wait()
        except TimeoutError:
            return False
        return True

    def table_changed(self) -> None:
        self.changes += 1
        self._note = asyncio.get_running_loop().create_task(self._notify(), name="notify")

    def linked_again(self) -> None:
        self.links += 1

    def wake_refused(self, refusal: WakeRefusal) -> None:
        self.refusals.append(refusal)
        self._note = asyncio.get_running_loop().create_task(self._notify(), name="notify")

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20), self.changed:
            await self.changed.wait_for(condition)


@pytest.fixture
def run_dir() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="ec-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


CIPHER = Cipher(new_secret_key())

Following = Callable[..., AbstractAsyncContextManager[tuple[LinkClient, FakeWorker]]]


@pytest.fixture
def following(run_dir: Path) -> Following:
    """Run a link client with a fake worker while the context lasts."""

    @asynccontextmanager
    async def run(
        name: str = "w0",
        worker: FakeWorker | None = None,
        *,
        grace: float = 60.0,
        clock: Callable[[], float] = time.time,
        silence_seconds: float = SILENCE_SECONDS,
    ) -> AsyncIterator[tuple[LinkClient, FakeWorker]]:
        worker = worker or FakeWorker()
        client = LinkClient(
            run_dir / "link",
            run_dir / "table",
            CIPHER,
            name=name,
            offline_grace_seconds=grace,
            clock=clock,
            silence_seconds=silence_seconds,
        )
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(client.run(worker), name=f"link of {name}")
            try:
                yield client, worker
            finally:
                task.cancel()

    return run
