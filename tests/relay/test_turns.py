from collections.abc import Callable, Iterator

import pytest

from elizacloud.relay.turns import Turns
from tests.relay.conftest import Cloud, RawAgent, request


class Loop:
    """An event loop whose turns the test makes."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.turns = Turns(self.soon.append)
        self.order: list[str] = []

    def begin(self, owner: str, count: int = 1) -> None:
        for _ in range(count):
            self.turns.begin(owner, lambda: self.order.append(owner))

    def move(self, owner: str, size: int = 256 << 10) -> None:
        self.turns.moved(
            owner,
            size,
            lambda: self.order.append(f"{owner} rests"),
            lambda: self.order.append(f"{owner} goes on"),
        )

    def turn(self) -> str:
        """What one more turn begins, in order."""
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
        loop.begin("a", 4)
        assert loop.order == ["a"] * 4
        loop.turn()


def test_a_turn_begins_so_many_and_the_loop_looks_before_the_next(loop: Loop) -> None:
    loop.begin("a", 10)
    assert loop.order == ["a"] * 4
    assert len(loop.soon) == 1
    assert list(loop.rest()) == ["a a a a", "a a"]


def test_who_comes_late_waits_for_a_few_only(loop: Loop) -> None:
    loop.begin("greedy", 100)
    loop.begin("other")
    assert loop.turn() == "greedy other greedy greedy"


def test_owners_take_turns_however_much_each_has(loop: Loop) -> None:
    loop.begin("a", 7)
    loop.begin("b", 3)
    loop.begin("c", 1)
    assert list(loop.rest()) == ["a b c a", "b a b"]


def test_what_begins_may_begin_another(loop: Loop) -> None:
    loop.begin("a", 4)
    loop.turns.begin("a", lambda: loop.begin("b"))
    assert list(loop.rest()) == ["b"]


def test_long_bodies_take_turns_with_requests(loop: Loop) -> None:
    loop.move("a")
    assert loop.order == []
    loop.move("b")
    loop.move("c")
    loop.begin("d")
    assert loop.order == ["b rests", "c rests"]
    assert list(loop.rest()) == ["b goes on", "c goes on", "d"]


async def test_a_client_that_leaves_while_it_waits_reaches_no_agent(cloud: Cloud) -> None:
    agent = RawAgent()
    cloud.agent(agent)
    turns = cloud.worker._surroundings.turns
    turns._left = 0.0  # and the loop was not asked to look: what comes now waits for us
    client = await cloud.client()
    client.send(request())
    client.close()
    (line,) = await cloud.log_lines(1)
    assert (line["outcome"], line["status"], cloud.metrics.in_flight) == ("aborted", 0, 0)
    turns._looked()
    assert (await cloud.ask(request("/next"))).status == 200
    assert [head.split(b" ")[1] for head in agent.heads] == [b"/next"]
