"""What may be done about findings now. Pure. Destroying the wrong thing is worse than leaving something for a minute.

A removal has to be found in two sweeps in a row. When there are suddenly many, when a list is empty that was not, or when the
world is ahead of the store (a backup was restored), nothing is removed: a person has to look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elizacloud.agents.reconcile.diff import REMOVALS, Finding, Kind
from elizacloud.agents.reconcile.observe import Outside

FEW_REMOVALS = 3
REMOVALS_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Seen:
    """What the sweep before saw."""

    findings: frozenset[Finding] = frozenset()
    instances: int = 0
    nodes: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`repair` now; `held` is for the operator, for the reason `why`."""

    repair: tuple[Finding, ...]
    held: tuple[Finding, ...] = ()
    why: str = ""


def judge(findings: Sequence[Finding], outside: Outside, before: Seen) -> Verdict:
    harmless = tuple(
        finding
        for finding in findings
        if finding.kind not in REMOVALS and (finding.kind is not Kind.SPENT_KEY or finding in before.findings)
    )
    confirmed = tuple(finding for finding in findings if finding.kind in REMOVALS and finding in before.findings)
    if why := _why_hold(confirmed, findings, outside, before):
        return Verdict(harmless, confirmed, why)
    return Verdict((*harmless, *confirmed))


def seen(findings: Sequence[Finding], outside: Outside) -> Seen:
    """What to remember of this sweep for the next one."""
    return Seen(frozenset(findings), len(outside.instances), len(outside.nodes))


def _why_hold(confirmed: Sequence[Finding], findings: Sequence[Finding], outside: Outside, before: Seen) -> str:
    if not confirmed:
        return ""
    if any(finding.kind is Kind.LATER_RUN for finding in findings):
        return "the database is older than what runs: was a backup restored?"
    for now, then, what in (
        (len(outside.instances), before.instances, "runtime"),
        (len(outside.nodes), before.nodes, "Headscale"),
    ):
        if now == 0 and then > FEW_REMOVALS:
            return f"the {what} lists nothing and had {then} before"
    total = len(outside.instances) + len(outside.nodes) + len(outside.keys)
    if len(confirmed) > max(FEW_REMOVALS, REMOVALS_SHARE * total):
        return f"{len(confirmed)} removals at once are too many of {total}"
    return ""
