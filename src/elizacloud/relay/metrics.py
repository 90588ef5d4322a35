"""What a worker counts. Plain numbers on the data path; turned into Prometheus families only when somebody looks.

Labels are from small fixed sets. There is none for an agent, an owner or an address: agents' ids are never used again, so
each would be a series for ever. Who used what is in the access log, line by line.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
_OWN_SECONDS = (0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1)


class Histogram:
    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: tuple[float, ...] = _SECONDS) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def family(self, name: str, documentation: str) -> HistogramMetricFamily:
        bounds = [str(bound) for bound in self._bounds] + ["+Inf"]
        buckets = list(zip(bounds, map(float, accumulate(self._counts)), strict=True))
        return HistogramMetricFamily(name, documentation, buckets=buckets, sum_value=self._sum)


class State(NamedTuple):
    """What a worker has now, as it is looked at when somebody asks."""

    connections: dict[tuple[str, str], int]
    """By upstream (agent, api) and what they do (idle, busy)."""
    agents: int
    linked: bool
    link_silent_seconds: float
    netmap_known: bool
    peers: int


class Metrics(Collector):
    """Register it with a `CollectorRegistry`. `state`, once it is set, is called from the thread that collects."""

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

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "elizacloud_relay_requests", "Requests by upstream and outcome", labels=["upstream", "outcome"]
        )
        for (upstream, outcome), count in self.requests.items():
            requests.add_metric([upstream, outcome], count)
        yield requests
        dials = CounterMetricFamily("elizacloud_relay_dials", "Dials to agents by result", labels=["result"])
        for result, count in self.dials.items():
            dials.add_metric([result], count)
        yield dials
        yield CounterMetricFamily(
            "elizacloud_relay_identity_refused",
            "Times that a peer was not the agent that was meant",
            value=self.identity_refused,
        )
        yield CounterMetricFamily(
            "elizacloud_relay_received_bytes", "Body bytes from clients to upstreams", value=self.bytes_in
        )
        yield CounterMetricFamily(
            "elizacloud_relay_sent_bytes", "Body bytes from upstreams to clients", value=self.bytes_out
        )
        yield GaugeMetricFamily("elizacloud_relay_clients", "Client connections open now", value=self.clients)
        yield GaugeMetricFamily(
            "elizacloud_relay_in_flight", "Requests, streams and upgraded connections open now", value=self.in_flight
        )
        opened = GaugeMetricFamily(
            "elizacloud_relay_streams", "Of those, answers that are event streams, and upgrades", labels=["kind"]
        )
        opened.add_metric(["events"], self.streams)
        opened.add_metric(["upgrade"], self.upgraded)
        yield opened
        if self.state is not None:
            yield from _state_families(self.state())
        yield self.first_byte.family(
            "elizacloud_relay_first_byte_seconds", "From a request's head to the first byte of its answer"
        )
        yield self.dial_time.family("elizacloud_relay_dial_seconds", "Time to connect to an agent")
        yield self.own_time.family(
            "elizacloud_relay_own_seconds", "What the relay itself adds to a request: neither dial nor upstream"
        )


def _state_families(state: State) -> Iterator[Metric]:
    pooled = GaugeMetricFamily(
        "elizacloud_relay_upstream_connections",
        "Connections to agents and to the API: busy with a request or an upgrade, or idle until the next one",
        labels=["upstream", "state"],
    )
    for labels, count in state.connections.items():
        pooled.add_metric(labels, count)
    yield pooled
    yield GaugeMetricFamily("elizacloud_relay_agents", "Agents that this worker knows a way to", value=state.agents)
    yield GaugeMetricFamily(
        "elizacloud_relay_link_up", "1 while the link to the control plane stands", value=state.linked
    )
    yield GaugeMetricFamily(
        "elizacloud_relay_link_silent_seconds",
        "Time since the control plane was heard to be well; tokens are honoured until offline_grace_seconds",
        value=state.link_silent_seconds,
    )
    yield GaugeMetricFamily(
        "elizacloud_relay_netmap_known",
        "1 while the relay follows its tailnet; at 0 nothing new is dialled",
        value=state.netmap_known,
    )
    yield GaugeMetricFamily("elizacloud_relay_peers", "Peers in the relay's netmap", value=state.peers)
