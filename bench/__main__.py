"""`make bench`: create -> joined beside a bare script, join, warm start. One table, printed and saved."""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.agents import Measured, measure
from bench.report import facts, markdown, show

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
    head = ("what", "seconds: median (min - max)", "ratio", "target")
    show(f"agents: {measured.server}, {ROUNDS} rounds ({facts()})", head, rows(measured))
    RESULTS.mkdir(exist_ok=True)
    table = markdown(head, rows(measured))
    text = f"# Agents on {measured.server}\n\n{facts()}, {ROUNDS} rounds, interleaved.\n\n{table}"
    (RESULTS / f"agents-{measured.kind}.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
