import asyncio

from elizacloud.relay.deadline import Deadline


class Loop:
    """A loop whose clock the test moves; counts the timers that were armed."""

    def __init__(self) -> None:
        self.now = 0.0
        self.armed = 0
        self.timers: list[Timer] = []

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: object) -> "Timer":
        self.armed += 1
        timer = Timer(when, call)
        self.timers.append(timer)
        return timer

    def go_to(self, now: float) -> None:
        self.now = now
        for timer in [timer for timer in self.timers if timer.due <= now and not timer.cancelled]:
            timer.cancelled = True
            timer.call()  # type: ignore[operator]


class Timer:
    def __init__(self, due: float, call: object) -> None:
        self.due, self.call, self.cancelled = due, call, False

    def when(self) -> float:
        return self.due

    def cancel(self) -> None:
        self.cancelled = True


def deadline() -> tuple[Loop, Deadline, list[float]]:
    loop = Loop()
    passed: list[float] = []
    as_loop: asyncio.AbstractEventLoop = loop  # type: ignore[assignment]
    return loop, Deadline(as_loop, lambda: passed.append(loop.now)), passed


def test_it_passes_once_at_its_time() -> None:
    loop, until, passed = deadline()
    until.set(5)
    loop.go_to(4.9)
    assert passed == []
    loop.go_to(5)
    loop.go_to(20)
    assert passed == [5]


def test_a_cleared_one_does_not_pass() -> None:
    loop, until, passed = deadline()
    until.set(5)
    until.clear()
    loop.go_to(10)
    assert passed == []


def test_setting_it_again_and_again_costs_one_timer() -> None:
    loop, until, passed = deadline()
    for second in range(1000):
        loop.now = second / 1000
        until.set(5)
        until.clear()
    until.set(5)
    assert loop.armed == 1
    loop.go_to(5)
    assert passed == []
    loop.go_to(6)
    assert len(passed) == 1
    assert loop.armed == 2


def test_an_earlier_one_is_kept_in_time() -> None:
    loop, until, passed = deadline()
    until.set(60)
    until.clear()
    until.set(1)
    loop.go_to(1)
    assert passed == [1]


def test_a_stopped_one_leaves_nothing_behind() -> None:
    loop, until, passed = deadline()
    until.set(5)
    until.stop()
    assert all(timer.cancelled for timer in loop.timers)
    loop.go_to(10)
    assert passed == []
