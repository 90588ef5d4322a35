"""The table of agents in containers: what is put beside what."""

from __future__ import annotations

from dataclasses import replace

from bench.docker.__main__ import NO_DOCKER_COMMAND, rows
from bench.docker.measure import Measured

BOTH = Measured(
    ours_seconds=[0.6],
    same_image_seconds=[0.5],
    script_seconds=[0.5],
    least_seconds=[0.25],
    ours_at_once_seconds=8.0,
    same_image_at_once_seconds=6.0,
    script_at_once_seconds=8.0,
    least_at_once_seconds=4.0,
    from_pause_seconds=[0.1],
    from_stop_seconds=[0.5],
    paused_for_seconds=60.0,
)


def test_ours_is_measured_beside_the_script_and_the_least() -> None:
    ratios = [row[2:] for row in rows(BOTH)[:8]]

    assert ratios == [
        ("1.20 x the script, 2.40 x the least", "<= 1.0 x"),
        ("1.00 x the script, 2.00 x the least", "<= 1.0 x"),
        ("1.00 x the script, 2.00 x the least", ""),
        ("0.50 x the script, 1.00 x the least", ""),
        ("1.00 x the script, 2.00 x the least", "<= 1.15 x"),
        ("0.75 x the script, 1.50 x the least", "<= 1.15 x"),
        ("1.00 x the script, 2.00 x the least", ""),
        ("0.50 x the script, 1.00 x the least", ""),
    ]


def test_without_a_docker_command_there_is_the_least_alone() -> None:
    table = rows(replace(BOTH, script_seconds=[], script_at_once_seconds=0.0))

    assert table[0][2] == "2.40 x the least"
    assert table[2][1:] == (NO_DOCKER_COMMAND, "", "")
    assert table[6][1:] == (NO_DOCKER_COMMAND, "", "")
