"""Pauses: doubled, capped, with jitter; and which deaths count."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from elizacloud.agents.backoff import HOST_STOPPED, LONGEST_SECONDS, backoff_seconds, quick_deaths
from elizacloud.model import Run

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def run(lived: float | None = 5.0, reason: str = "exit 1") -> Run:
    ended = None if lived is None else NOW + timedelta(seconds=lived)
    return Run("a", 1, 1, started_at=NOW, ended_at=ended, end_reason=reason)


def test_pauses_double_up_to_the_cap() -> None:
    pauses = [backoff_seconds(attempts) for attempts in range(1, 40)]
    assert pauses[:4] == [0.5, 1, 2, 4]
    assert pauses[-1] == LONGEST_SECONDS
    assert backoff_seconds(10**6) == LONGEST_SECONDS


@pytest.mark.parametrize("chance", [0.0, 0.3, 0.999])
def test_jitter_moves_the_upper_half_only(chance: float) -> None:
    for attempts in range(1, 12):
        assert backoff_seconds(attempts) / 2 <= backoff_seconds(attempts, chance) <= backoff_seconds(attempts)


@pytest.mark.parametrize(
    ("runs", "deaths"),
    [
        ([], 0),
        ([run(None)], 0),
        ([run()], 1),
        ([run(), run(), run()], 3),
        ([run(), run(3600), run()], 1),
        ([run(reason="stopped: as wanted")], 0),
        ([run(), run(reason="stopped: as wanted"), run()], 1),
        ([run(reason=HOST_STOPPED)], 0),
        ([run(reason=HOST_STOPPED), run(), run()], 2),
        ([run(reason=HOST_STOPPED), run(reason=HOST_STOPPED), run(reason=HOST_STOPPED)], 2),
        ([run(reason=HOST_STOPPED), run(3600, HOST_STOPPED), run(reason=HOST_STOPPED)], 0),
    ],
)
def test_only_quick_deaths_in_a_row_count(runs: list[Run], deaths: int) -> None:
    assert quick_deaths(runs) == deaths
