"""Hours of the week in which an agent is awake whether it is used or not: `mon-fri 08:00-18:00`, in a time zone. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from elizacloud.errors import Invalid

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOST_HOURS = 32
_DAY, _TIME = "(?:mon|tue|wed|thu|fri|sat|sun)", "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
HOURS_PATTERN = f"^{_DAY}(?:-{_DAY})? {_TIME}-(?:{_TIME}|24:00)$"
_IS_HOURS = re.compile(HOURS_PATTERN.removesuffix("$"))
_HOURS = re.compile("([a-z]{3})(?:-([a-z]{3}))? ([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")
_DAY_MINUTES = 24 * 60


@dataclass(frozen=True, slots=True)
class Hours:
    """From one minute of a day to another one, which is on the next day when it is not later; `days` are 0 (Monday) to 6."""

    days: frozenset[int]
    start_minute: int
    minutes: int


@dataclass(frozen=True, slots=True)
class Window:
    start: datetime
    end: datetime


@dataclass(frozen=True, slots=True)
class Schedule:
    hours: tuple[Hours, ...]
    zone: ZoneInfo

    def window(self, at: datetime) -> Window | None:
        """The hours that it is in at that time."""
        return next((window for window in self._windows(at) if window.start <= at < window.end), None)

    def next_start(self, after: datetime) -> datetime | None:
        """When the next hours begin."""
        return next((window.start for window in self._windows(after) if window.start > after), None)

    def _windows(self, around: datetime) -> list[Window]:
        """Those of the day before and of the eight days from then on, in UTC; hours that meet or overlap are one."""
        today = around.astimezone(self.zone).date()
        single: list[Window] = []
        for offset in range(-1, 9):
            day = today + timedelta(days=offset)
            midnight = datetime(day.year, day.month, day.day, tzinfo=self.zone)
            for hours in self.hours:
                if day.weekday() in hours.days:
                    # Wall-clock time: `timedelta` moves the hands, the zone says what moment that is.
                    start = midnight + timedelta(minutes=hours.start_minute)
                    end = start + timedelta(minutes=hours.minutes)
                    single.append(Window(start.astimezone(UTC), end.astimezone(UTC)))
        merged: list[Window] = []
        for window in sorted(single, key=lambda window: window.start):
            if merged and window.start <= merged[-1].end:
                merged[-1] = Window(merged[-1].start, max(merged[-1].end, window.end))
            else:
                merged.append(window)
        return merged


def read_schedule(zone: str, awake: Sequence[str]) -> Schedule:
    """Raises Invalid."""
    try:
        known = ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise Invalid(
            f"cannot use the time zone {zone[:40]!r}: give one as Europe/Berlin or UTC", code="invalid_idle_policy"
        ) from None
    if not 1 <= len(awake) <= MOST_HOURS:
        raise Invalid(
            f"cannot use a schedule of {len(awake)} lines: give 1 to {MOST_HOURS}", code="invalid_idle_policy"
        )
    return Schedule(tuple(_read_hours(line) for line in awake), known)


def _read_hours(line: str) -> Hours:
    found = _HOURS.fullmatch(line)
    if found is None or not _IS_HOURS.fullmatch(line):
        raise Invalid(
            f"cannot read the hours {line[:40]!r}: write them as `mon-fri 08:00-18:00`", code="invalid_idle_policy"
        )
    first, last, *times = found.groups()
    start_hour, start_minute, end_hour, end_minute = map(int, times)
    start, end = start_hour * 60 + start_minute, end_hour * 60 + end_minute
    return Hours(_days(first, last or first), start, end - start if end > start else end - start + _DAY_MINUTES)


def _days(first: str, last: str) -> frozenset[int]:
    start, end = DAYS.index(first), DAYS.index(last)
    return frozenset((start + offset) % 7 for offset in range((end - start) % 7 + 1))
