"""`make bench`: create -> joined beside a bare script, join, warm start. One table, printed and saved."""

from __future__ import annotations

import asyncio
import os
import platform
import statistics
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.agents import Measured, measure

RESULTS = Path(__file__).parent / "results"
ROUNDS = 10


def rows(measured: Measured) -> list[tuple[str, str, str, str]]:
    """What was measured, beside what, the ratio of medians, the target."""
    ratio = statistics.median(measured.create_seconds) / statistics.median(measured.bare_seconds)
    return [
        ("create -> joined", _spread(measured.create_seconds), f"{ratio:.2f} x a bare script", "<= 1.3 x"),
        ("bare script: mint, tailscaled, tailscale up", _spread(measured.bare_seconds), "1", ""),
        ("create -> ready through the relay", _spread(measured.ready_seconds), "", ""),
        ("join alone (started -> joined)", _spread(measured.join_seconds), "", "< 0.6 s"),
        ("first request through the relay", _spread(measured.request_seconds), "", ""),
        ("delete -> gone", _spread(measured.delete_seconds), "", ""),
        ("warm `up` to ready", _spread(measured.up_seconds), "", "< 5 s"),
    ]


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.3f} ({min(seconds):.3f} - {max(seconds):.3f})"


def main() -> int:
    measured = asyncio.run(measure(ROUNDS))
    machine = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    facts = f"{datetime.now(UTC):%Y-%m-%d}, {machine}"
    table = Table(title=f"agents: {measured.server}, {ROUNDS} rounds ({facts})", title_justify="left")
    head = ("what", "seconds: median (min - max)", "ratio", "target")
    for column in head:
        table.add_column(column)
    for row in rows(measured):
        table.add_row(*row)
    Console().print(table)
    RESULTS.mkdir(exist_ok=True)
    lines = ["| " + " | ".join(head) + " |", "| --- | --- | --- | --- |"]
    lines += ["| " + " | ".join(row) + " |" for row in rows(measured)]
    text = f"# Agents on {measured.server}\n\n{facts}, {ROUNDS} rounds, interleaved.\n\n" + "\n".join(lines) + "\n"
    (RESULTS / f"agents-{measured.kind}.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
