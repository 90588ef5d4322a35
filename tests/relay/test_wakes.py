"""How often a worker asks for one agent."""

from __future__ import annotations

from elizacloud.relay.wakes import Wakes

Asked = list[tuple[str, float | None]]


class FakeWaker:
    def __init__(self) -> None:
        self.asked: Asked = []

    def tell_wake(self, agent_id: str, poll_gap_seconds: float | None = None) -> None:
        self.asked.append((agent_id, poll_gap_seconds))


def asked_at(*times: tuple[float, float | None]) -> Asked:
    """What is asked for when requests and polls come at these times, with nothing heard and somebody always held."""
    waker, now = FakeWaker(), [0.0]
    wakes = Wakes(waker, lambda: now[0])
    for now[0], poll_gap_seconds in times:
        wakes.ask("a", poll_gap_seconds)
    return waker.asked


def test_it_is_asked_for_once_and_again_when_nothing_came_of_it() -> None:
    assert asked_at((0, None), (1, None), (1.9, None)) == [("a", None)]
    assert asked_at((0, None), (1, None), (2, None), (3.9, None), (4, None)) == [("a", None)] * 3


def test_polls_ask_again_for_polls_alone() -> None:
    assert asked_at((0, 5.0), (1, 6.0), (2, 7.0)) == [("a", 5.0), ("a", 7.0)]
    assert asked_at((0, 5.0), (1, None), (9, 5.0)) == [("a", 5.0), ("a", None)]
