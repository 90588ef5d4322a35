"""How a benchmark tells what it measured: one table, printed, and saved as Markdown with the facts that it rests on."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from rich.console import Console
from rich.table import Table


def facts(*, load_before: float | None = None) -> str:
    """The day and the machine; `load_before` is its load average before the run."""
    load = () if load_before is None else (f"load {load_before:.1f} before",)
    system = f"{platform.system()} {platform.release()}"
    python = f"Python {platform.python_version()}"
    return ", ".join((f"{datetime.now(UTC):%Y-%m-%d}", f"{os.cpu_count()} cores", system, python, *load))


def show(title: str, head: Sequence[str], rows: Iterable[Sequence[str]], console: Console | None = None) -> None:
    table = Table(*head, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    (console or Console()).print(table)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))
