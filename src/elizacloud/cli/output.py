"""What commands print: tables and colours on a terminal, plain lines otherwise, JSON when asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import typer

STATE_STYLES = {
    "ready": "green",
    "joined": "cyan",
    "paused": "blue",
    "stopped": "bright_black",
    "deleting": "magenta",
    "tombstone": "magenta",
}


def is_terminal() -> bool:
    return sys.stdout.isatty()


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2 if is_terminal() else None, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """A table on a terminal; otherwise tab-separated lines without a head, for `cut` and `awk`."""
    rows = list(rows)
    if not is_terminal():
        for row in rows:
            typer.echo("\t".join(one_line(cell) for cell in row))
        return
    if not rows:
        typer.echo(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell), style=STATE_STYLES.get(cell, "")) for cell in row))
    Console().print(table)


def print_fields(fields: Sequence[tuple[str, str]]) -> None:
    """`name: value` lines, aligned."""
    width = max(len(name) for name, _ in fields) + 1
    for name, value in fields:
        typer.echo(f"{name + ':':<{width}}  {one_line(value)}")


def one_line(text: str) -> str:
    """Without control characters: what an agent or its owner wrote must not move the cursor or ring the bell."""
    return "".join(character if character.isprintable() else " " for character in text)


def ago(moment: datetime | None) -> str:
    if moment is None:
        return ""
    seconds = max(0, int((datetime.now(UTC) - moment).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit} ago"
    return f"{seconds} s ago"
