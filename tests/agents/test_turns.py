"""Owners take turns: one who hangs, or several, hold up nobody else, and nobody gets more than their share."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from elizacloud.agents import drive
from elizacloud.agents.turns import Turns
from elizacloud.upstreams import Probe, Upstream
from tests.agents.world import World
from tests.virtual_time import pass_seconds

pytestmark = pytest.mark.looptime


class Place:
    """Who is in a turn now, and who ever was, in order."""

    def __init__(self, turns: Turns, tasks: asyncio.TaskGroup) -> None:
        self._turns = turns
        self._tasks = tasks
        self._gates: dict[str, list[asyncio.Event]] = {}
        self.inside: Counter[str] = Counter()
        self.order: list[str] = []

    def enter(self, owner: str) -> asyncio.Task[None]:
        return self._tasks.create_task(self._enter(owner), name=owner)

    async def _enter(self, owner: str) -> None:
        async with self._turns.turn(owner):
            gate = asyncio.Event()
            self._gates.setdefault(owner, []).append(gate)
            self.inside[owner] += 1
            self.order.append(owner)
            await gate.wait()
        self.inside[owner] -= 1

    async def leave(self, owner: str) -> None:
        self._gates[owner].pop(0).set()
        await settle()


async def settle() -> None:
    await pass_seconds(0.001)


def turns() -> Turns:
    return Turns(at_once=4, of_owner=3, with_first=6)


async def test_one_owner_gets_no_more_than_their_share() -> None:
    async with asyncio.TaskGroup() as tasks:
        place = Place(turns(), tasks)
        for _ in range(5):
            place.enter("ann")
        await settle()
        assert place.inside["ann"] == 3
        for left in (3, 3, 2, 1, 0):
            await place.leave("ann")
            assert place.inside["ann"] == left


async def test_an_owner_of_whom_nothing_goes_on_waits_for_nobody() -> None:
    async with asyncio.TaskGroup() as tasks:
        place = Place(turns(), tasks)
        for owner in ("ann", "ann", "bob", "bob", "ann", "bob"):
            place.enter(owner)
        await settle()
        assert place.inside.total() == 4, "all usual places are taken"
        for owner in ("cid", "dan"):
            place.enter(owner)
        await settle()
        assert (place.inside["cid"], place.inside["dan"]) == (1, 1)
        place.enter("eve")
        await settle()
        assert not place.inside.get("eve"), "there is an end to that"
        await place.leave("ann")
        assert place.inside["eve"] == 1
        assert place.inside["ann"] == 1, "the first of an owner goes before the second of another"
        for owner in ("ann", "ann", "bob", "bob", "bob", "cid", "dan", "eve"):
            await place.leave(owner)


async def test_places_that_are_free_again_go_round() -> None:
    async with asyncio.TaskGroup() as tasks:
        place = Place(Turns(at_once=2, of_owner=2, with_first=2), tasks)
        for owner in ("ann", "ann", "ann", "ann", "bob", "bob", "cid"):
            place.enter(owner)
        for left in ("ann", "ann", "bob", "ann", "cid", "bob", "ann"):
            await settle()
            await place.leave(left)
    assert place.order == ["ann", "ann", "bob", "ann", "cid", "bob", "ann"]


async def test_who_gives_up_waiting_takes_nobodys_place() -> None:
    async with asyncio.TaskGroup() as tasks:
        place = Place(Turns(at_once=1, of_owner=1, with_first=1), tasks)
        place.enter("ann")
        await settle()
        given_up, late = place.enter("bob"), place.enter("cid")
        await settle()
        given_up.cancel()
        await settle()
        waiting = place.enter("dan")
        await settle()
        place._gates["ann"].pop(0).set()
        late.cancel()  # in the moment in which its turn comes
        await settle()
        assert place.inside == {"ann": 0, "dan": 1}
        await place.leave("dan")
        assert waiting.done()


async def test_agents_that_do_not_answer_hold_up_nobody_elses(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing is done but looking: probes of two owners' agents take as long as they may."""
    for name, many in (("LOOKS_AT_ONCE", 8), ("LOOKS_AT_ONCE_OF_OWNER", 6), ("LOOKS_WITH_FIRST", 12)):
        monkeypatch.setattr(drive, name, many)
    world.new_lifecycle()
    probe = world.relays.probe

    async def slow(upstream: Upstream, *, within_seconds: float) -> Probe:
        if upstream.owner_id != "cid":
            await pass_seconds(within_seconds)
        return await probe(upstream, within_seconds=within_seconds)

    world.relays.probe = slow  # type: ignore[method-assign]
    async with world.running():
        for number in range(40):
            await world.create(f"silent {number}", owner_id=("ann", "bob")[number % 2])
        await world.passes(3)
        began = asyncio.get_running_loop().time()
        await world.ready("good", owner_id="cid")
        assert asyncio.get_running_loop().time() - began < 1
