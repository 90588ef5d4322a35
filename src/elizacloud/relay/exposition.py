"""A worker's numbers as Prometheus families, made only when somebody looks."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from elizacloud.relay.metrics import Histogram, Metrics, State


class Exposition(Collector):
    """Register it with a `CollectorRegistry`."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "elizacloud_relay_requests", "Requests by upstream and outcome", labels=["upstream", "outcome"]
        )
        for (upstream, outcome), count in self._metrics.requests.items():
            requests.add_metric([upstream, outcome], count)
        yield requests
        dials = CounterMetricFamily("elizacloud_relay_dials", "Dials to agents by result", labels=["result"])
        for result, count in self._metrics.dials.items():
            dials.add_metric([result], count)
        yield dials
        yield CounterMetricFamily(
            "elizacloud_relay_identity_refused",
            "Times that a peer was not the agent that was meant",
            value=self._metrics.identity_refused,
        )
        yield CounterMetricFamily(
            "elizacloud_relay_received_bytes", "Body bytes from clients to upstreams", value=self._metrics.bytes_in
        )
        yield CounterMetricFamily(
            "elizacloud_relay_sent_bytes", "Body bytes from upstreams to clients", value=self._metrics.bytes_out
        )
        yield GaugeMetricFamily("elizacloud_relay_clients", "Client connections open now", value=self._metrics.clients)
        yield GaugeMetricFamily(
            "elizacloud_relay_in_flight",
            "Requests, streams and upgraded connections open now",
            value=self._metrics.in_flight,
        )
        opened = GaugeMetricFamily(
            "elizacloud_relay_streams", "Of those, answers that are event streams, and upgrades", labels=["kind"]
        )
        opened.add_metric(["events"], self._metrics.streams)
        opened.add_metric(["upgrade"], self._metrics.upgraded)
        yield opened
        if self._metrics.state is not None:
            yield from _state_families(self._metrics.state())
        yield _histogram(
            self._metrics.first_byte,
            "elizacloud_relay_first_byte_seconds",
            "From a request's head to the first byte of its answer",
        )
        yield _histogram(self._metrics.dial_time, "elizacloud_relay_dial_seconds", "Time to connect to an agent")
        yield _histogram(
            self._metrics.own_time,
            "elizacloud_relay_own_seconds",
            "What the relay itself adds to a request: neither dial nor upstream",
        )


def _histogram(histogram: Histogram, name: str, documentation: str) -> HistogramMetricFamily:
    bounds = [str(bound) for bound in histogram.bounds] + ["+Inf"]
    buckets = list(zip(bounds, map(float, accumulate(histogram.counts)), strict=True))
    return HistogramMetricFamily(name, documentation, buckets=buckets, sum_value=histogram.sum)


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
