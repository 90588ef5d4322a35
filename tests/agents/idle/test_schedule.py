"""Hours of the week, in a time zone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from elizacloud.agents.idle.schedule import Window, read_schedule
from elizacloud.errors import Invalid


def at(day: int, hour: int, minute: int = 0) -> datetime:
    """In the week of Monday, 2026-01-05."""
    return datetime(2026, 1, day, hour, minute, tzinfo=UTC)


def test_working_hours() -> None:
    schedule = read_schedule("UTC", ["mon-fri 08:00-18:00"])
    assert schedule.window(at(5, 8)) == Window(at(5, 8), at(5, 18))
    assert schedule.window(at(5, 7, 59)) is None
    assert schedule.window(at(5, 18)) is None
    assert schedule.window(at(10, 12)) is None, "Saturday"
    assert schedule.next_start(at(9, 18)) == at(12, 8), "Monday follows Friday"
    assert schedule.next_start(at(5, 7)) == at(5, 8)


def test_hours_over_midnight_and_over_the_end_of_the_week() -> None:
    schedule = read_schedule("UTC", ["sat-mon 22:00-06:00"])
    assert schedule.window(at(6, 5)) == Window(at(5, 22), at(6, 6)), "Monday night ends on Tuesday"
    assert schedule.window(at(11, 23)) is not None, "Sunday"
    assert schedule.window(at(8, 23)) is None, "Thursday"


def test_hours_that_meet_are_one() -> None:
    schedule = read_schedule("UTC", ["mon 08:00-12:00", "mon 12:00-13:00", "mon 12:30-18:00"])
    assert schedule.window(at(5, 13)) == Window(at(5, 8), at(5, 18))
    whole_week = read_schedule("UTC", ["mon-sun 00:00-24:00"])
    window = whole_week.window(at(7, 12))
    assert window is not None
    assert window.end > at(8, 12)


def test_hours_are_those_of_the_wall_clock() -> None:
    schedule = read_schedule("Europe/Berlin", ["sun 01:00-05:00"])
    spring = schedule.window(datetime(2026, 3, 29, 2, tzinfo=UTC))
    assert spring == Window(datetime(2026, 3, 29, 0, tzinfo=UTC), datetime(2026, 3, 29, 3, tzinfo=UTC))
    assert schedule.next_start(datetime(2026, 7, 1, tzinfo=UTC)) == datetime(2026, 7, 4, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("zone", "awake"),
    [
        ("Mars/Olympus", ["mon 08:00-18:00"]),
        ("../../etc/passwd", ["mon 08:00-18:00"]),
        ("", ["mon 08:00-18:00"]),
        ("UTC", []),
        ("UTC", ["mon 08:00-18:00"] * 33),
        ("UTC", ["monday 08:00-18:00"]),
        ("UTC", ["mon 8-18"]),
        ("UTC", ["mon 24:00-18:00"]),
        ("UTC", ["mon 08:60-18:00"]),
        ("UTC", ["mon 08:00-24:01"]),
        ("UTC", ["mon 08:00-18:00\n"]),
    ],
)
def test_what_cannot_be_read_is_said(zone: str, awake: list[str]) -> None:
    with pytest.raises(Invalid) as caught:
        read_schedule(zone, awake)
    assert caught.value.reason == "invalid_idle_policy"
