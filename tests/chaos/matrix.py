"""Which step met which trouble at which seam; printed at the end, and complete or a failure."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

import pytest

from elizacloud.states import Step
from tests.chaos.gate import Seam


class Fault(StrEnum):
    CONTROL_PLANE_KILLED = "control plane killed"
    INSTANCE_KILLED = "instance killed"
    RUNTIME_KILLED = "process host killed"
    HEADSCALE_KILLED = "Headscale killed"
    HEADSCALE_STALLED = "Headscale stalled"
    HEADSCALE_FAILS = "Headscale answers 500"
    ANSWER_LOST = "Headscale acts, answer lost"
    STORE_LOST = "store connection lost"
    DISK_FULL = "disk full"


FAULTS = tuple(Fault)
EVERY_SEAM = os.environ.get("CHAOS") == "all"
"""Every seam meets every fault, which takes most of an hour; else one seam of each step does."""

NO_INSTANCE = frozenset({Step.MINT_KEY, Step.CONFIRM_GONE})
"""Steps in which an agent never has a process that could be killed."""


@dataclass
class Matrix:
    """By step and fault: the seams at which an agent was held when it struck."""

    KEY: ClassVar[pytest.StashKey[dict[str, Matrix]]] = pytest.StashKey()
    """By control server."""

    hits: dict[tuple[str, Fault], list[str]] = field(default_factory=dict)

    def hit(self, seam: Seam, fault: Fault) -> None:
        self.hits.setdefault((seam.step, fault), []).append(seam.place)

    def missing(self, faults: Iterable[Fault]) -> list[str]:
        return [
            f"{step.value} x {fault.value}"
            for fault in faults
            for step in Step
            if (step.value, fault) not in self.hits and not (fault is Fault.INSTANCE_KILLED and step in NO_INSTANCE)
        ]

    def lines(self, faults: Sequence[Fault]) -> list[str]:
        lines = []
        for step in Step:
            lines.append(step.value)
            for fault in faults:
                places = self.hits.get((step.value, fault), [])
                no_instance = fault is Fault.INSTANCE_KILLED and step in NO_INSTANCE
                said = ", ".join(places) or ("no instance in this step" if no_instance else "NOT HIT")
                lines.append(f"  {fault.value:<28} {said}")
        return lines


WORST = {
    (Step.MINT_KEY, Fault.CONTROL_PLANE_KILLED): "after create_preauth_key",
    (Step.START, Fault.CONTROL_PLANE_KILLED): "after start",
    (Step.RESTART, Fault.CONTROL_PLANE_KILLED): "after create",
    (Step.MINT_KEY, Fault.ANSWER_LOST): "before create_preauth_key",
    (Step.DELETE, Fault.ANSWER_LOST): "before delete_node",
    (Step.MINT_KEY, Fault.HEADSCALE_STALLED): "before create_preauth_key",
    (Step.START, Fault.RUNTIME_KILLED): "after start",
    (Step.START, Fault.DISK_FULL): "before start",
    (Step.MINT_KEY, Fault.DISK_FULL): "before create",
}
"""Where the first wave has to strike, because what is at stake there is known by nobody yet."""


def choose(places: Mapping[Step, Sequence[str]], fault: Fault, number: int) -> dict[Step, Seam]:
    """One seam a step: the first waves of all faults have them spread from begin to end, and each next wave the next."""
    chosen = {}
    for shift, step in enumerate(Step):
        own = _with_instance(step, places[step]) if fault is Fault.INSTANCE_KILLED else places[step]
        if number == 0 and (step, fault) in WORST:
            chosen[step] = Seam(step.value, WORST[step, fault])
            continue
        first = (FAULTS.index(fault) + shift) % len(FAULTS) * len(own) // len(FAULTS)
        chosen[step] = Seam(step.value, own[(first + number) % len(own)])
    return chosen


_INSTANCE_WHILE = {
    Step.START: ("after start", None),
    Step.RESTART: ("after start", None),
    Step.STOP: (None, "before stop"),
    Step.DELETE: (None, "before stop"),
}
"""From which seam on and up to which one the agent's instance runs; in other steps it does all the time, or never."""


def _with_instance(step: Step, places: Sequence[str]) -> Sequence[str]:
    first, last = _INSTANCE_WHILE.get(step, (None, None))
    begin = places.index(first) if first is not None else 0
    end = places.index(last) + 1 if last is not None else len(places)
    return places[begin:end]
