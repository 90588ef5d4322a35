from collections.abc import Callable, Iterator
from functools import partial

import pytest

from elizacloud.relay.turns import Turns
from tests.relay.conftest import Cloud, RawAgent, let_all_wait, request, until

MUCH = 10 << 10
"""Bytes, of which two pieces are a turn."""


class Loop:
    """An event loop whose turns the test makes."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.time = 0.0
        self.turns = Turns(self.soon.append, lambda: self.time)
        self.order: list[str] = []
        self.sizes: list[int] = []
        """Of what had to wait."""

    def come(self, owner: str, count: int = 1, size: int = 1) -> None:
        """So many events of an owner; what is taken, at once or in its turn, is in `order`."""
        for _ in range(count):
            if self.turns.now(owner, size, partial(self._take, owner)):
                self.order.append(owner)

    def _take(self, owner: str, size: int) -> None:
        self.order.append(owner)
        self.sizes.append(size)

    def turn(self) -> str:
        """What one more turn takes, in order."""
        self.order.clear()
        soon = tuple(self.soon)
        self.soon.clear()
        for each in soon:
            each()
        return " ".join(self.order)

    def rest(self) -> Iterator[str]:
        while self.soon:
            yield self.turn()


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_nobody_waits_as_long_as_little_comes(loop: Loop) -> None:
    for _ in range(10):
        loop.come("a", 2)
        loop.come("b", 2)
        assert loop.order == ["a", "a", "b", "b"]
        loop.turn()


def test_a_turn_takes_so_many_and_the_loop_looks_before_the_next(loop: Loop) -> None:
    loop.come("a", 10)
    assert loop.order == ["a"] * 4
    assert len(loop.soon) == 1
    assert list(loop.rest()) == ["a a a a", "a a"]


def test_who_comes_late_with_much_waits_for_one_of_the_others(loop: Loop) -> None:
    loop.come("greedy", 100, size=MUCH)
    loop.come("other", size=MUCH)
    assert loop.turn() == "greedy other"


def test_one_small_thing_of_each_owner_goes_ahead_of_the_line(loop: Loop) -> None:
    loop.come("greedy", 100)
    loop.come("a", 2)
    loop.come("b")
    loop.come("greedy")
    assert loop.order == [*["greedy"] * 4, "a", "b"]
    assert loop.turn() == "greedy a greedy greedy"
    loop.come("a", 2)
    assert loop.order[4:] == ["a"]


def test_not_many_go_ahead_of_the_line(loop: Loop) -> None:
    loop.come("greedy", 100)
    for number in range(100):
        loop.come(f"owner {number}")
    assert loop.order == [*["greedy"] * 4, *(f"owner {number}" for number in range(15))]


def test_owners_take_turns_however_much_each_has(loop: Loop) -> None:
    loop.come("first", 2, size=MUCH)
    loop.come("a", 7, size=MUCH)
    loop.come("b", 3, size=MUCH)
    loop.come("c", 1, size=MUCH)
    assert list(loop.rest()) == ["a b", "c a", "b a", "b a", "a a", "a"]


def test_what_fails_in_its_turn_holds_up_nobody(loop: Loop) -> None:
    def fails(size: int) -> None:
        raise RuntimeError("a bug")

    loop.come("a", 2, size=MUCH)
    loop.turns.now("b", MUCH, fails)
    loop.come("c", size=MUCH)
    assert loop.turn() == "c"


def test_long_bodies_take_turns_with_requests(loop: Loop) -> None:
    loop.come("a", size=256 << 10)
    assert loop.order == ["a"]
    loop.come("b", 3, size=256 << 10)
    loop.come("c", size=256 << 10)
    loop.come("d")
    assert loop.order == ["a", "d"]
    assert list(loop.rest()) == ["b", "c", "b", "b", ""]
    assert loop.sizes == [32 << 10] * 4


def test_of_one_owner_alone_all_is_taken_at_once(loop: Loop) -> None:
    loop.come("a", 4)
    loop.time = 2.0
    loop.turn()
    assert loop.turns.now("a", 256 << 10, lambda size: None) == 256 << 10


def test_one_owner_alone_is_looked_away_from_less_often(loop: Loop) -> None:
    loop.come("a", 4)
    loop.time = 2.0
    loop.turn()
    loop.come("a", 128)
    assert loop.order == ["a"] * 128
    assert list(loop.rest()) == [""]


def test_one_who_joins_an_owner_alone_waits_for_a_few_only(loop: Loop) -> None:
    loop.come("a", 4)
    loop.time = 2.0
    loop.turn()
    loop.come("a", 20)
    loop.come("b", 4)
    loop.come("a")
    assert loop.order == ["a"] * 20 + ["b"] * 4 + ["a"]
    loop.come("a", 100)
    loop.come("b")
    assert loop.turn() == "a b a a"


def test_a_new_connection_of_an_owner_alone_is_nobody_else(loop: Loop) -> None:
    loop.come("a", 4)
    loop.time = 2.0
    loop.turn()
    loop.turns.came_from("192.0.2.1", "a")
    loop.come("192.0.2.1")
    loop.come("a")
    assert loop.turns.alone
    loop.come("192.0.2.2")
    assert not loop.turns.alone


def test_a_new_connection_from_where_another_owner_came_is_somebody_else(loop: Loop) -> None:
    loop.turns.came_from("192.0.2.1", "b")
    loop.come("a", 4)
    loop.time = 2.0
    loop.turn()
    assert loop.turns.alone
    loop.come("192.0.2.1")
    assert not loop.turns.alone


async def test_the_next_connection_of_the_same_client_is_nobody_else(cloud: Cloud, agent: RawAgent) -> None:
    assert (await cloud.ask(request())).status == 200
    turns = cloud.worker._surroundings.turns
    turns._shared_until = 0.0
    turns._looked()
    assert (await cloud.ask(request())).status == 200
    assert turns.alone


async def test_a_client_that_leaves_while_it_waits_reaches_no_agent(cloud: Cloud) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    turns = cloud.worker._surroundings.turns
    let_all_wait(turns)
    client = await cloud.client()
    client.send(request())
    await until(lambda: bool(turns._lines))
    client.close()
    await until(lambda: cloud.metrics.clients == 0)
    turns._looked()
    assert (await cloud.ask(request("/next"))).status == 200
    assert [head.split(b" ")[1] for head in agent.heads] == [b"/next"]
