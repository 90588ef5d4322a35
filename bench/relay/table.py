"""How the figures are shown: the detailed table, and the short one that README.md has between its marks. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from bench.relay.figures import CONNECTIONS, OURS, TARGETS, Figures, Part, Result, Target, Verdict, from_json, verdicts

RESULTS = Path(__file__).parents[1] / "results"
SAVED = RESULTS / "relay.json"
MARK = "bench-relay"

_DETAIL = (
    "relay",
    "connections",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "CPU us",
    "ours / theirs",
    "p99",
    "target",
    "reached",
)
_SHORT = ("", "relay", "requests/s", "p99 ms", "CPU us", "MB/s", "ours beside it", "not reached")


def detail(part: Part) -> list[tuple[str, ...]]:
    """A row for each contender at each number of connections, and for the large body."""
    rows = []
    for connections in sorted({each for result in part.results for each in result.rounds}):
        for result in part.results:
            if (figures := result.median(connections)) is not None:
                found = _compared(part, result, f"at {connections}")
                rows.append((result.name, str(connections), *_figures(figures), *_verdict_cells(found)))
    for result in part.results:
        if result.body is not None:
            speed = f"{result.body / 1e6:,.0f} MB/s"
            found = _compared(part, result, "large body")
            rows.append((result.name, "large body", speed, "", "", "", *_verdict_cells(found)))
    return rows


def _compared(part: Part, result: Result, ending: str) -> list[Verdict]:
    if part.ours is None or result is part.ours:
        return []
    return [each for each in verdicts(part.name, part.ours, result) if each.what.endswith(ending)]


def _figures(figures: Figures) -> tuple[str, ...]:
    p50, p99 = (f"{seconds * 1e3:.2f}" for seconds in (figures.p50_seconds, figures.p99_seconds))
    return (
        f"{figures.requests_per_second:,.0f}",
        p50,
        p99,
        f"{figures.cpu_seconds * 1e6:.0f}" if figures.cpu_seconds else "",
    )


def _verdict_cells(found: Sequence[Verdict]) -> tuple[str, str, str, str]:
    rate = ", ".join(each.text for each in found if not each.what.startswith("p99"))
    p99 = "".join(each.text for each in found if each.what.startswith("p99"))
    aimed = [each for each in found if each.reached is not None]
    targets = ", ".join(f"p99 {each.target}" if each.what.startswith("p99") else each.target for each in aimed)
    missed = [each for each in aimed if not each.reached]
    return rate, p99, targets, "" if not aimed else "no" if missed else "yes"


def short(parts: Sequence[Part]) -> list[tuple[str, ...]]:
    """A row for each contender: its figures at each number of connections, ratios, and the targets that are not reached."""
    rows: list[tuple[str, ...]] = []
    for part in parts:
        label = f"**{part.name}**"
        for result in part.results:
            medians = [result.median(each) for each in CONNECTIONS]
            rates = _joined(f"{each.requests_per_second:,.0f}" if each else "-" for each in medians)
            p99s = _joined(f"{each.p99_seconds * 1e3:.1f}" if each else "-" for each in medians)
            at_32 = result.median(32)
            cpu = f"{at_32.cpu_seconds * 1e6:.0f}" if at_32 and at_32.cpu_seconds else ""
            body = f"{result.body / 1e6:,.0f}" if result.body else ""
            rows.append((label, result.name, rates, p99s, cpu, body, *_beside(part, result)))
            label = ""
        for name in part.missing:
            rows.append((label, name, "missing", "", "", "", "", ""))
            label = ""
    return rows


def _beside(part: Part, result: Result) -> tuple[str, str]:
    found = _compared(part, result, "")
    rates = [each for each in found if each.what.startswith("requests/s")]
    if not rates:
        return "", ""
    target = TARGETS.get((part.name, result.name), Target({}))
    text = f"{_joined(each.text.removesuffix(' x') for each in rates)} x"
    text += f" (target {_target_text(target)})" if target.rate else ""
    missed = [each for each in found if each.reached is False]
    why = ", ".join(f"{each.what}: {each.text}, target {each.target}" for each in missed)
    return text, why or ("" if not target.rate else "all reached")


def _target_text(target: Target) -> str:
    values = set(target.rate.values())
    rate = f"{values.pop():g}" if len(values) == 1 else _joined(f"{each:g}" for each in target.rate.values())
    if set(target.rate) != set(CONNECTIONS):
        rate += f" at {' / '.join(str(each) for each in target.rate)}"
    parts = [f"{rate} x"]
    if target.p99 is not None:
        parts.append(f"p99 {target.p99:g} x")
    if target.added_p50_seconds is not None:
        parts.append(f"p50 +{target.added_p50_seconds * 1e3:g} ms")
    if target.body is not None:
        parts.append(f"body {target.body:g} x")
    return ", ".join(parts)


def _joined(values: Iterable[str]) -> str:
    return " / ".join(values)


def rich_tables(parts: Sequence[Part]) -> Iterator[Table]:
    for part in parts:
        table = Table(title=f"{part.name}: {versions(part)}", title_justify="left")
        for number, column in enumerate(_DETAIL):
            table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number < 8)
        last = ""
        for row in detail(part):
            if last and row[1] != last:
                table.add_section()
            last = row[1]
            table.add_row(*row)
        yield table


def versions(part: Part) -> str:
    named = [f"{each.name} {each.version}" for each in part.results if each.version]
    return ", ".join([*named, part.over] if part.over else named)


def caption(facts: Mapping[str, str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in facts.items())


def short_markdown(parts: Sequence[Part], facts: Mapping[str, str]) -> str:
    """The table for README.md, with what it was measured on."""
    names = [f"{part.name}: {versions(part)}" for part in parts if part.results]
    connections = " / ".join(str(each) for each in CONNECTIONS)
    said = (
        f"Requests/s, p99 and ratios at {connections} connections, CPU time a request at 32, one body of 64 MB. "
        f"{caption(facts)}. {'. '.join(names)}."
    )
    return f"{_markdown(_SHORT, short(parts))}\n\n{said}\n"


def full_markdown(parts: Sequence[Part], facts: Mapping[str, str]) -> str:
    """The saved page: the short table, then every figure, who is missing, what failed."""
    text = f"# The relay beside the field\n\n{short_markdown(parts, facts)}"
    for part in parts:
        text += f"\n## {part.name}\n\n"
        if rows := detail(part):
            text += _markdown(_DETAIL, rows) + "\n"
        text += "".join(f"\nMissing: {name}: {why}\n" for name, why in part.missing.items())
        text += "".join(f"\nFailed: {each.name} {failure}\n" for each in part.results for failure in each.failures)
    return text


def readme_block() -> str:
    """What README.md has between its marks: the last saved run."""
    parts, facts = from_json(json.loads(SAVED.read_text()))
    ours = "ours" if not any(part.ours for part in parts) else OURS
    return f"\n`make bench-relay`, {ours} beside the field:\n\n{short_markdown(parts, facts)}\n"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
