"""`make bench-agents`: agents in containers beside a bare script and the least that can be done, in one run. One table, printed
and saved.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from tests.docker_engine import NoEngine, an_engine

from bench.docker.measure import Measured, Plan, measure
from bench.report import facts, markdown, show
from elizacloud.binaries import Binaries, show_progress
from elizacloud.settings import load_settings

RESULTS = Path(__file__).parents[1] / "results"
QUICK = Plan(rounds=3, at_once=4, pauses=3, stops=3, paused_seconds=3)
NO_DOCKER_COMMAND = "not measured: no docker command here"
HEAD = ("what", "measured", "ratio", "target")


def rows(measured: Measured) -> list[tuple[str, str, str, str]]:
    """What was measured, beside what, and the target, which is of the bare script; without one, of the least."""
    script, least = measured.script_seconds, measured.least_seconds
    number = len(measured.ours_seconds)

    def beside(seconds: float, of_script: float, of_least: float) -> str:
        ratio = f"{seconds / of_script:.2f} x the script, " if script else ""
        return f"{ratio}{seconds / of_least:.2f} x the least"

    def created(what: str, seconds: Sequence[float], target: str = "") -> tuple[str, str, str, str]:
        of_script = statistics.median(script) if script else 0.0
        ratio = beside(statistics.median(seconds), of_script, statistics.median(least)) if seconds else ""
        return what, _spread(seconds) if seconds else NO_DOCKER_COMMAND, ratio, target

    def at_once(what: str, seconds: float, target: str = "") -> tuple[str, str, str, str]:
        ratio = beside(seconds, measured.script_at_once_seconds, measured.least_at_once_seconds) if seconds else ""
        return what, f"{seconds:.2f} s" if seconds else NO_DOCKER_COMMAND, ratio, target

    return [
        created(f"create -> reachable beside a sidecar, p50 of {number}", measured.ours_seconds, "<= 1.0 x"),
        created("create -> reachable in the bare script's image", measured.same_image_seconds, "<= 1.0 x"),
        created("the bare script: mint, docker run, join, requests", script),
        created("the least that can be done: no docker command", least),
        at_once("all at once beside sidecars, in all", measured.ours_at_once_seconds, "<= 1.15 x"),
        at_once("all at once in the bare script's image", measured.same_image_at_once_seconds, "<= 1.15 x"),
        at_once("the bare script, all at once", measured.script_at_once_seconds),
        at_once("the least that can be done, all at once", measured.least_at_once_seconds),
        ("wake from pause", _spread(measured.from_pause_seconds), "", "p50 <= 0.12 s"),
        ("wake from stop", _spread(measured.from_stop_seconds), "", "p50 <= 0.7 s, p99 <= 1.5 s"),
        ("tailscaled of an idle agent", f"{measured.tailscaled_rss_bytes / 1e6:.1f} MB RSS", "", "<= 25 MB"),
        (
            f"paused for {measured.paused_for_seconds:.0f} s",
            f"{measured.paused_cpu_seconds * 1000:.1f} ms of CPU",
            f"{measured.paused_cpu_seconds / measured.paused_for_seconds:.2%}",
            "0 %",
        ),
        ("the sidecar's image", f"{measured.sidecar_image_bytes / 1e6:.1f} MB", "", "<= 25 MB"),
    ]


def _spread(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, round(0.99 * (len(ordered) - 1)))]
    return f"p50 {statistics.median(ordered):.3f} s, p99 {p99:.3f} s, {ordered[0]:.3f} - {ordered[-1]:.3f} s"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.docker", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few rounds, which are not saved")
    parser.add_argument("--rounds", type=int, help="rounds of create -> reachable; not saved")
    options = parser.parse_args()
    plan = QUICK if options.quick else Plan()
    if options.rounds:
        plan = replace(plan, rounds=options.rounds)
    console = Console(width=None if sys.stdout.isatty() else 160)
    load = os.getloadavg()[0]
    with show_progress() as progress:
        binaries = Binaries.from_settings(load_settings().settings, progress)
        os.environ["ELIZACLOUD_TAILSCALED_BIN"] = str(asyncio.run(binaries.tailscaled()).path)
    try:
        with an_engine() as engine:
            measured = asyncio.run(measure(engine, plan))
    except NoEngine as reason:
        console.print(f"cannot measure: {reason}")
        return 1
    rests_on = f"{facts(load_before=load)}, {measured.engine}, {measured.server}"
    show(f"agents in containers ({rests_on})", HEAD, rows(measured), console)
    if plan != Plan():
        console.print("not saved: only a whole run is")
        return 0
    RESULTS.mkdir(exist_ok=True)
    table = markdown(HEAD, rows(measured))
    text = f"# Agents in containers\n\n{rests_on}; ours, the bare script and the least by turns.\n\n{table}"
    (RESULTS / "agents-docker.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
