"""What may be done about findings now. Pure. Destroying the wrong thing is worse than leaving something for a minute.

A removal has to be found in two sweeps in a row. When there are suddenly many, when a list is empty that was not, or when the
world is ahead of the store (a backup was restored), nothing is removed: a person has to look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from elizacloud.agents.reconcile.diff import ALARMS, REMOVALS, Finding, Kind
from elizacloud.agents.reconcile.observe import Outside

FEW_REMOVALS = 3
REMOVALS_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class Seen:
    """What the sweep before saw."""

    findings: frozenset[Finding] = frozenset()
    instances: int = 0
    nodes: int = 0
    volumes: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """`repair` now; `held` is for the operator, for the reason `why`; `waiting` has to be seen once more; `alarms` are
    only told."""

    repair: tuple[Finding, ...]
    held: tuple[Finding, ...] = ()
    why: str = ""
    waiting: tuple[Finding, ...] = ()
    alarms: tuple[Finding, ...] = ()


def judge(
    findings: Sequence[Finding], outside: Outside, before: Seen, *, suspicion: str = "", accepted: bool = False
) -> Verdict:
    """`suspicion` says why the store itself is not to be trusted; `accepted`: the operator wants what is held done."""
    waiting = tuple(finding for finding in findings if _needs_two(finding) and finding not in before.findings)
    alarms = tuple(finding for finding in findings if finding.kind in ALARMS and finding in before.findings)
    confirmed = [finding for finding in findings if finding.kind not in ALARMS and finding not in waiting]
    why = "" if accepted else suspicion or _why_hold(confirmed, findings, outside, before)
    strange = not accepted and any(finding.kind is Kind.UNKNOWN_VOLUME for finding in confirmed)
    held = tuple(
        finding
        for finding in confirmed
        if (why and _is_held(finding, outside, findings)) or (strange and finding.kind is Kind.UNKNOWN_VOLUME)
    )
    # An agent is in the store before anything of it is outside, and what an agent made cannot be made again.
    why = why or ("there is state of agents that the store never knew: was a backup restored?" if strange else "")
    repair = tuple(finding for finding in confirmed if finding not in held)
    return Verdict(repair, held, why if held else "", waiting, alarms)


def seen(findings: Sequence[Finding], outside: Outside) -> Seen:
    """What to remember of this sweep for the next one."""
    return Seen(frozenset(findings), len(outside.instances), len(outside.nodes), len(outside.volumes))


def _needs_two(finding: Finding) -> bool:
    return finding.kind in REMOVALS | ALARMS | {Kind.SPENT_KEY, Kind.EXTRA_KEY}


def _is_held(finding: Finding, outside: Outside, findings: Sequence[Finding]) -> bool:
    return finding.kind in REMOVALS or (finding.kind is Kind.NODE_GONE and _lost_all_nodes(outside, findings))


def _lost_all_nodes(outside: Outside, findings: Sequence[Finding]) -> bool:
    """Then it is Headscale that lost its memory, and not somebody who deleted nodes."""
    return not outside.nodes and sum(finding.kind is Kind.NODE_GONE for finding in findings) > FEW_REMOVALS


def _why_hold(confirmed: Sequence[Finding], findings: Sequence[Finding], outside: Outside, before: Seen) -> str:
    if _lost_all_nodes(outside, findings):
        return "Headscale lists no node and the store knows several: was it begun anew?"
    removals = [finding for finding in confirmed if finding.kind in REMOVALS - {Kind.UNKNOWN_VOLUME}]
    if not removals:
        return ""
    if any(finding.kind is Kind.LATER_RUN for finding in findings):
        return "the database is older than what runs: was a backup restored?"
    if any(finding.kind is Kind.ID_TWICE for finding in findings):
        return "Headscale gave ids a second time: was a backup of it restored?"
    for now, then, what in (
        (len(outside.instances), before.instances, "the runtime lists no instance"),
        (len(outside.volumes), before.volumes, "the runtime lists no volume"),
        (len(outside.nodes), before.nodes, "Headscale lists no node"),
    ):
        if now == 0 and then > FEW_REMOVALS:
            return f"{what} and had {then} before"
    total = sum(map(len, (outside.instances, outside.nodes, outside.keys, outside.volumes)))
    if len(removals) > max(FEW_REMOVALS, REMOVALS_SHARE * total):
        return f"{len(removals)} removals at once are too many of {total}"
    return ""
