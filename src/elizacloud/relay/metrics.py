"""What a worker counts. Plain numbers on the data path; turned into Prometheus families only when somebody looks."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from itertools import accumulate

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


class Metrics(Collector):
    """Register it with a `CollectorRegistry`. Labels are from small fixed sets: never an agent, owner or address."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, str]] = Counter()
        """By upstream (agent, api, none) and outcome: 2xx..5xx, upgraded, aborted, or our own error's code."""
        self.dials: Counter[str] = Counter()
        """By result: connected, or the error's code."""
        self.identity_refused = 0
        self.clients = 0
        self.in_flight = 0
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
        yield self.first_byte.family(
            "elizacloud_relay_first_byte_seconds", "From a request's head to the first byte of its answer"
        )
        yield self.dial_time.family("elizacloud_relay_dial_seconds", "Time to connect to an agent")
        yield self.own_time.family(
            "elizacloud_relay_own_seconds", "What the relay itself adds to a request: neither dial nor upstream"
        )
