"""What an owner may say about agents that nobody uses, for one agent or for all of theirs. Pure.

Three layers, each of which may leave things to the one below: the agent's, its owner's, the installation's settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from elizacloud.agents.idle.schedule import Schedule, read_schedule
from elizacloud.errors import Invalid

NEVER = "never"
LONGEST_SECONDS = 366 * 86_400.0
IDLE_AFTER, STOP_AFTER, SCHEDULE = "idleAfterSeconds", "stopAfterSeconds", "schedule"


@dataclass(frozen=True, slots=True)
class Policy:
    idle_after_seconds: float | None
    """How long nobody may have used it before it is paused; None: it never is."""
    stop_after_seconds: float | None
    """How long it is paused before it is stopped; 0: it is stopped and not paused; None: it stays paused."""
    schedule: Schedule | None = None
    """When it is awake, used or not."""


def policy_of(base: Policy, *layers: Mapping[str, Any]) -> Policy:
    """The policy that holds: `base`, and over it what each layer says, by its wire names. Raises Invalid."""
    for layer in layers:
        base = _over(base, layer)
    return base


def check_policy(layer: Mapping[str, Any]) -> None:
    """Raise Invalid, with a sentence, for a layer that cannot be understood."""
    _over(Policy(None, None), layer)


def _over(base: Policy, layer: Mapping[str, Any]) -> Policy:
    if unknown := set(layer) - {IDLE_AFTER, STOP_AFTER, SCHEDULE}:
        raise _invalid(f"there is no {sorted(map(str, unknown))[0][:40]}")
    if (idle_after := layer.get(IDLE_AFTER)) is not None:
        base = replace(base, idle_after_seconds=_seconds(IDLE_AFTER, idle_after, least=1))
    if (stop_after := layer.get(STOP_AFTER)) is not None:
        base = replace(base, stop_after_seconds=_seconds(STOP_AFTER, stop_after, least=0))
    if (schedule := layer.get(SCHEDULE)) is not None:
        base = replace(base, schedule=_schedule(schedule))
    return base


def _seconds(name: str, value: Any, *, least: float) -> float | None:
    if value == NEVER:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= LONGEST_SECONDS:
        raise _invalid(f"{name} is {least:g} to {LONGEST_SECONDS:.0f}, or {NEVER!r}")
    return float(value)


def _schedule(value: Any) -> Schedule | None:
    if value == NEVER:
        return None
    if not isinstance(value, Mapping) or set(value) - {"timezone", "awake"}:
        raise _invalid("schedule has timezone and awake")
    zone, awake = value.get("timezone") or "UTC", value.get("awake")
    if not isinstance(zone, str) or not isinstance(awake, (list, tuple)):
        raise _invalid("schedule has a timezone and a list of hours")
    if not all(isinstance(line, str) for line in awake):
        raise _invalid("the hours of a schedule are texts")
    return read_schedule(zone, awake)


def _invalid(what: str) -> Invalid:
    return Invalid(f"cannot use this idle policy: {what}; see docs/idle.md", code="invalid_idle_policy")
