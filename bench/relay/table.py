"""How the figures are shown: the detailed table, and the short one that README.md has between its marks. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.table import Table

from bench.relay.figures import BODY, CONNECTIONS, CPU, P50, P99, RATE, Figures, Part, Result, Verdict, verdicts
from bench.relay.saved import from_json

RESULTS = Path(__file__).parents[1] / "results"
SAVED = RESULTS / "relay.json"
MARK = "bench-relay"

DETAIL = (
    "relay",
    "connections",
    "requests/s",
    "p50 ms",
    "p99 ms",
    "CPU us",
    "ours / theirs",
    "p99",
    "CPU",
    "target",
    "reached",
)
SHORT = ("", "relay", "requests/s", "p99 ms", "CPU us", "MB/s", "ours / theirs", "target", "not reached")


def detail(part: Part) -> list[tuple[str, ...]]:
    """A row for each contender at each number of connections, and for the large body."""
    rows = []
    for connections in sorted({each for result in part.results for each in result.rounds}):
        for result in part.results:
            if (figures := result.median(connections)) is not None:
                found = [each for each in _compared(part, result) if each.connections == connections]
                rows.append((result.name, str(connections), *_figures(figures), *_verdict_cells(found)))
    for result in part.results:
        if result.body is not None:
            speed = f"{result.body / 1e6:,.0f} MB/s"
            found = [each for each in _compared(part, result) if each.kind == BODY]
            rows.append((result.name, "large body", speed, "", "", "", *_verdict_cells(found)))
    return rows


def _compared(part: Part, result: Result) -> list[Verdict]:
    return verdicts(part.name, part.ours, result) if part.ours else []


def _figures(figures: Figures) -> tuple[str, ...]:
    p50, p99 = (f"{seconds * 1e3:.2f}" for seconds in (figures.p50_seconds, figures.p99_seconds))
    return (
        f"{figures.requests_per_second:,.0f}",
        p50,
        p99,
        f"{figures.cpu_seconds * 1e6:.0f}" if figures.cpu_seconds else "",
    )


def _verdict_cells(found: Sequence[Verdict]) -> tuple[str, ...]:
    rate = ", ".join(each.text for each in found if each.kind not in (P99, CPU))
    p99 = "".join(each.text for each in found if each.kind == P99)
    cpu = "".join(each.text for each in found if each.kind == CPU)
    aimed = [each for each in found if each.reached is not None]
    targets = ", ".join(f"p99 {each.target}" if each.kind == P99 else each.target for each in aimed)
    missed = [each for each in aimed if not each.reached]
    return rate, p99, cpu, targets, "" if not aimed else "no" if missed else "yes"


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
            rows.append((label, name, "missing", *[""] * 6))
            label = ""
    return rows


def _beside(part: Part, result: Result) -> tuple[str, str, str]:
    """The ratios, their targets, and which of these are not reached; nothing for ours and for what has no target."""
    found = _compared(part, result)
    rates = [each for each in found if each.kind == RATE]
    if not rates:
        return "", "", ""
    aimed = {each.kind for each in found if each.reached is not None}
    shown = [kind for kind in (RATE, P50, P99, BODY) if kind in aimed or kind == RATE]
    ratios = "; ".join(_ratios([each for each in found if each.kind == kind]) for kind in shown)
    if not aimed:
        return ratios, "", ""
    targets = "; ".join(_ratios([each for each in found if each.kind == kind], targets=True) for kind in shown)
    missed = "; ".join(
        _named(kind, [each for each in found if each.kind == kind and each.reached is False]) for kind in shown
    )
    return ratios, targets, missed.strip("; ") or "all reached"


def _ratios(found: Sequence[Verdict], *, targets: bool = False) -> str:
    """`1.1 / 2.0 x p99`: a kind's ratios at each number of connections, or its targets, said once when all are the same."""
    texts = [(each.target or "-") if targets else each.text for each in found]
    numbers = [text.removesuffix(" x") for text in texts]
    if targets and len(set(numbers)) == 1:
        numbers = numbers[:1]
    unit = {RATE: " x", P50: " p50"}.get(found[0].kind, f" x {found[0].kind}")
    return f"{' / '.join(numbers)}{unit}"


def _named(kind: str, missed: Sequence[Verdict]) -> str:
    if not missed:
        return ""
    return kind if kind in (BODY, P50) else f"{kind} at {', '.join(str(each.connections) for each in missed)}"


def _joined(values: Iterable[str]) -> str:
    return " / ".join(values)


def rich_tables(parts: Sequence[Part]) -> Iterator[Table]:
    for part in parts:
        table = Table(title=f"{part.name}: {versions(part)}", title_justify="left")
        for number, column in enumerate(DETAIL):
            table.add_column(column, justify="left" if number == 0 else "right", no_wrap=number < 9)
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
    return f"{_markdown(SHORT, short(parts))}\n\n{said}\n"


def full_markdown(parts: Sequence[Part], facts: Mapping[str, str]) -> str:
    """The saved page: the short table, then every figure, who is missing, what failed."""
    text = f"# The relay beside the field\n\n{short_markdown(parts, facts)}"
    for part in parts:
        text += f"\n## {part.name}\n\n"
        if rows := detail(part):
            text += _markdown(DETAIL, rows) + "\n"
        text += "".join(f"\nMissing: {name}: {why}\n" for name, why in part.missing.items())
        text += "".join(f"\nFailed: {each.name} {failure}\n" for each in part.results for failure in each.failures)
    return text


def readme_block() -> str:
    """What README.md has between its marks: the last saved run."""
    if not SAVED.exists():
        return ""
    parts, facts = from_json(json.loads(SAVED.read_text()))
    said = "`make bench-relay` measures the relay beside the field, in one run, and says where it falls short of its target:"
    return f"{said}\n\n{short_markdown(parts, facts)}\n"


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])
