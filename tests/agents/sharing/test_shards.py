"""Which leases to take and give up."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from elizacloud.agents.sharing.shards import MEMBER, SHARED, SWEEPS, Plan, members, plan, shard_of
from elizacloud.model import new_agent_id
from elizacloud.store import Lease

A_FEW = ("1", "2", "3", "4", "5")


def seen(holders: dict[str, str | None], running: tuple[str, ...]) -> list[Lease]:
    return [Lease(f"{MEMBER}{one}", one, 1) for one in running] + [
        Lease(name, holder, 1) for name, holder in holders.items()
    ]


def test_an_agent_belongs_to_one_shard_for_ever() -> None:
    assert shard_of("a" * 16) == "agents 5"
    ids = [new_agent_id() for _ in range(800)]
    assert {shard_of(agent_id) for agent_id in ids} == set(SHARED) - {SWEEPS}
    assert max(Counter(map(shard_of, ids)).values()) < 100


def test_the_first_one_takes_all() -> None:
    assert plan([], "1") == Plan(SHARED, ())


def test_one_that_comes_later_gets_its_share_and_sweeps_stay_where_they_are() -> None:
    world = seen(dict.fromkeys(SHARED, "1"), ("1", "2"))
    assert plan(world, "2") == Plan((), ())
    given_up = plan(world, "1").give_up
    assert len(given_up) == 8
    assert SWEEPS not in given_up


def test_what_a_dead_one_held_is_taken() -> None:
    world = seen({name: "1" if name == SWEEPS else None for name in SHARED}, ("1",))
    assert set(plan(world, "1").take) == set(SHARED) - {SWEEPS}


def test_one_that_is_not_counted_yet_counts_itself() -> None:
    assert len(plan(seen(dict.fromkeys(SHARED), ("1",)), "2").take) == 9


def test_members_are_those_whose_own_lease_is_held() -> None:
    leases = [Lease(f"{MEMBER}1", "1", 1), Lease(f"{MEMBER}2", None, 1), Lease(SWEEPS, "3", 1)]
    assert members(leases) == {"1"}


@given(
    st.lists(st.sampled_from(A_FEW), min_size=1, unique=True),
    st.lists(st.none() | st.sampled_from(A_FEW), min_size=len(SHARED), max_size=len(SHARED)),
)
def test_from_anywhere_all_is_held_and_shared_fairly_soon(running: list[str], holders: list[str | None]) -> None:
    """Those who do not run lose what they have; the others act on what they see, one after the other."""
    held: dict[str, str | None] = {
        name: holder if holder in running else None for name, holder in zip(SHARED, holders, strict=True)
    }
    for _ in range(3):
        for me in running:
            planned = plan(seen(held, tuple(running)), me)
            assert not (planned.take and planned.give_up)
            held |= dict.fromkeys(planned.give_up) | dict.fromkeys(planned.take, me)
    counts = Counter(held.values())
    assert set(counts) <= set(running)
    assert max(counts.values()) <= -(-len(SHARED) // len(running))
    assert all(not plan(seen(held, tuple(running)), me).give_up for me in running)
