"""What a worker counts: plain numbers on the data path (exposition.py makes Prometheus families of them).

Labels are from small fixed sets. There is none for an agent, an owner or an address: agents' ids are never used again, so
each would be a series for ever. Who used what is in the access log, line by line.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_OWN_SECONDS = (0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1)


class Histogram:
    """`counts` has one more than `bounds`: what is above the last one."""

    __slots__ = ("bounds", "counts", "sum")

    def __init__(self, bounds: tuple[float, ...] = _SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.sum += seconds


class State(NamedTuple):
    """What a worker has now, as it is looked at when somebody asks."""

    connections: dict[tuple[str, str], int]
    """By upstream (agent, api) and what they do (idle, busy)."""
    agents: int
    linked: bool
    link_silent_seconds: float
    netmap_known: bool
    peers: int


class Metrics:
    """`state`, once it is set, is called from the thread that collects."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        """By upstream (agent, api, none) and outcome: 2xx..5xx, upgraded, aborted, or our own error's code."""
        self.dials: Counter[str] = Counter()
        """By result: connected, or the error's code."""
        self.identity_refused = 0
        self.clients = 0
        self.in_flight = 0
        self.streams = 0
        self.upgraded = 0
        self.state: Callable[[], State] | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.first_byte = Histogram()
        self.dial_time = Histogram()
        self.own_time = Histogram(_OWN_SECONDS)
