"""Taking, keeping and losing, on a store whose answers a test decides about."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import pytest

from elizacloud.agents.sharing.leases import BEAT_SECONDS, LEASE_SECONDS, LEAVE_SECONDS, Leases
from elizacloud.agents.sharing.shards import MEMBER, SHARED, SWEEPS
from elizacloud.errors import LeaseLost, StoreUnavailable
from elizacloud.store import Fence, Lease
from tests.agents.world import _pass

pytestmark = pytest.mark.looptime


@dataclass
class FakeStore:
    """store.Leases in virtual time, as tests/store/test_leases.py has it of the real one."""

    rows: dict[str, tuple[str | None, int, float]] = field(default_factory=dict)
    down: bool = False
    seconds: float = 0.0
    """How long the answer to a renewal takes, which acted at once."""
    take_seconds: float = 0.0
    """The same of a lease that is taken."""

    async def look(self) -> Sequence[Lease]:
        self._answer()
        return [Lease(name, self._holder(name), epoch) for name, (_, epoch, _until) in self.rows.items()]

    async def renew(self, holder: str, seconds: float) -> Sequence[Fence]:
        self._answer()
        mine = [name for name in self.rows if self._holder(name) == holder]
        for name in mine:
            self.rows[name] = (holder, self.rows[name][1], _now() + seconds)
        renewed = [Fence(name, holder, self.rows[name][1]) for name in mine]
        await _pass(self.seconds)
        return renewed

    async def take(self, name: str, holder: str, seconds: float) -> Fence | None:
        self._answer()
        if self._holder(name) is not None:
            return None
        epoch = self.rows.get(name, (None, 0, 0.0))[1] + 1
        self.rows[name] = (holder, epoch, _now() + seconds)
        await _pass(self.take_seconds)
        return Fence(name, holder, epoch)

    async def give_up(self, names: Collection[str], holder: str) -> None:
        self._answer()
        for name in names:
            if self._holder(name) == holder:
                self.rows[name] = (None, self.rows[name][1], 0.0)

    async def forget(self, prefix: str) -> None:
        self._answer()

    def _holder(self, name: str) -> str | None:
        holder, _, until = self.rows.get(name, (None, 0, 0.0))
        return holder if until > _now() else None

    def _answer(self) -> None:
        if self.down:
            raise StoreUnavailable("cannot use the database: it does not answer")


def _now() -> float:
    return asyncio.get_running_loop().time()


@asynccontextmanager
async def running(
    leases: Leases, taken: list[str] | None = None, lost: Callable[[], None] = lambda: None
) -> AsyncIterator[Leases]:
    task = asyncio.create_task(leases.run((taken if taken is not None else []).extend, lost), name="leases")
    try:
        await _pass(0.1)
        yield leases
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def a_control_plane(store: FakeStore, me: str) -> Leases:
    return Leases(store, me)  # type: ignore[arg-type]


async def test_one_alone_has_all_and_keeps_it() -> None:
    store, taken = FakeStore(), list[str]()
    async with running(a_control_plane(store, "1"), taken) as one:
        before = dict(store.rows)
        assert set(taken) == set(SHARED)
        await _pass(100)
        assert set(one.held) == set(SHARED)
        assert (await one.leading()).fence == Fence(SWEEPS, "1", 1)
        assert {name: row[1] for name, row in store.rows.items()} == {name: row[1] for name, row in before.items()}


async def test_agents_are_taken_up_also_when_the_database_is_too_slow_for_one_beat() -> None:
    store, taken = FakeStore(take_seconds=0.5), list[str]()
    async with running(a_control_plane(store, "1"), taken) as one:
        await _pass(60)
        assert set(one.held) == set(SHARED)
        assert sorted(taken) == sorted(SHARED)


async def test_two_share_and_a_third_comes_and_goes() -> None:
    store = FakeStore()
    async with running(a_control_plane(store, "1")) as one, running(a_control_plane(store, "2")) as two:
        await _pass(5)
        assert sorted([len(one.held), len(two.held)]) == [8, 9]
        async with running(a_control_plane(store, "3")) as three:
            await _pass(5)
            assert sorted([len(one.held), len(two.held), len(three.held)]) == [5, 6, 6]
            assert one.seen_members() == {"1", "2", "3"}
        await _pass(5)
        assert len(one.held) + len(two.held) == len(SHARED)
        assert one.lead() is not None


async def test_one_that_stops_leaves_nothing_behind_it() -> None:
    store = FakeStore()
    async with running(a_control_plane(store, "1")):
        pass
    assert not [name for name in store.rows if store._holder(name)]


async def test_what_a_dead_one_had_is_taken_within_ten_seconds() -> None:
    store = FakeStore()
    for name in (*SHARED, f"{MEMBER}1"):
        await store.take(name, "1", LEASE_SECONDS)
    began = _now()
    async with running(a_control_plane(store, "2")) as two:
        async with asyncio.timeout(10):
            await two.leading()
        assert _now() - began <= LEASE_SECONDS + 2 * BEAT_SECONDS
        await _pass(2)
        assert set(two.held) == set(SHARED)


async def test_a_store_that_is_away_ends_all_work_and_its_return_is_a_new_beginning() -> None:
    store, taken, lost = FakeStore(), list[str](), list[None]()
    async with running(a_control_plane(store, "1"), taken, lambda: lost.append(None)) as one:
        hold = one.of("a" * 16)
        assert hold is not None
        store.down = True
        with pytest.raises(LeaseLost):
            async with hold.under():
                await _pass(1000)
        assert one.of("a" * 16) is None
        assert one.lead() is None
        store.down = False
        await _pass(2 * BEAT_SECONDS)
        again = one.of("a" * 16)
        assert again is not None
        assert again.fence == Fence("agents 5", "1", 2)
        assert len(taken) == 2 * len(SHARED)
        assert len(lost) == len(SHARED)


async def test_a_renewal_whose_answer_took_too_long_does_not_count() -> None:
    """The database has it, but nobody knows for how long: it is given up and taken again, with a new epoch."""
    store = FakeStore()
    slow = Leases(store, "1", lease_seconds=8.0)  # type: ignore[arg-type]
    async with running(slow):
        hold = slow.of("a" * 16)
        assert hold is not None
        store.down = True
        await _pass(7.5)
        store.down, store.seconds = False, 1.0
        await _pass(6)
        assert hold.is_over or slow.of("a" * 16) is hold
        store.seconds = 0.0
        await _pass(3)
        assert set(slow.held) == set(SHARED)


async def test_what_is_given_up_is_first_left_to_end() -> None:
    store = FakeStore()
    async with running(a_control_plane(store, "1")) as one:
        hold = one._held["agents 15"]
        async with running(a_control_plane(store, "2")):
            with pytest.raises(LeaseLost):
                async with hold.under():
                    await _pass(3 * BEAT_SECONDS)
                    assert hold.is_leaving
                    assert one._of("agents 15") is None
                    assert store._holder("agents 15") == "1"
                    await _pass(LEAVE_SECONDS)
            await _pass(2 * BEAT_SECONDS)
            assert store._holder("agents 15") == "2"


async def test_what_was_to_be_given_up_and_is_kept_after_all_is_taken_up_again() -> None:
    """Whoever was woken in between was left to the other one, which is gone."""
    store, taken = FakeStore(), list[str]()
    async with running(a_control_plane(store, "1"), taken) as one:
        hold = one._held["agents 15"]
        taken.clear()
        async with hold.under():
            async with running(a_control_plane(store, "2")):
                await _pass(1.5 * BEAT_SECONDS)
                assert hold.is_leaving
                assert taken == []
            await _pass(2 * BEAT_SECONDS)
            assert one._of("agents 15") is hold
            assert taken.count("agents 15") == 1
            await _pass(10 * BEAT_SECONDS)
            assert taken.count("agents 15") == 1
