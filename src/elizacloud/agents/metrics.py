"""What the control plane counts, for Prometheus. No label names an agent or an owner: each would be a series for ever."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any, cast

from prometheus_client import Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

from elizacloud.errors import Error
from elizacloud.headscale.protocol import Headscale
from elizacloud.states import State

_STEP_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
_CALL_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics(Collector):
    """Register it with a `CollectorRegistry`. `states` counts agents; it is called from the thread that collects, and may
    raise an Error or TimeoutError."""

    def __init__(self) -> None:
        self.states: Callable[[], dict[State, int]] | None = None
        self.step_seconds = Histogram(
            "elizacloud_step_seconds",
            "From when a step was due until it was done",
            ["step"],
            buckets=_STEP_SECONDS,
            registry=None,
        )
        self.step_failures = Counter(
            "elizacloud_step_failures",
            "Tries of a step that failed; each is tried again",
            ["step", "code"],
            registry=None,
        )
        self.step_retries = Counter(
            "elizacloud_step_retries", "Tries of a step that had failed before", ["step"], registry=None
        )
        self.found = Counter(
            "elizacloud_drift_found",
            "Differences between store, runtime and Headscale, each counted when it is first seen",
            ["kind"],
            registry=None,
        )
        self.drift = Gauge("elizacloud_drift", "Differences that the last sweep saw", ["kind"], registry=None)
        self.repairs = Counter("elizacloud_repairs", "Repairs of such a difference", ["kind", "result"], registry=None)
        self.host_answers = Gauge(
            "elizacloud_host_answers",
            "1 for a Docker host that answered when it was last asked, 0 for one that did not",
            ["host"],
            registry=None,
        )
        self.leases = Gauge(
            "elizacloud_leases", "Leases that this control plane holds; 0 where it is the only one", registry=None
        )
        self.lease_losses = Counter(
            "elizacloud_lease_losses",
            "Leases that ended before they were given up: the database was away, or this process stood still",
            registry=None,
        )
        self.members = Gauge(
            "elizacloud_control_planes", "Control planes that run on this database, as this one sees it", registry=None
        )
        self.members.set(1)
        self.held = Gauge("elizacloud_held", "Repairs that are held for the operator", registry=None)
        self.hints_held = Counter(
            "elizacloud_hints_held",
            "Hints that an agent's machine gave too often, each looked at later; the log names the agent",
            registry=None,
        )
        self.sweep_seconds = Histogram(
            "elizacloud_sweep_seconds", "Time of a whole sweep", buckets=_STEP_SECONDS, registry=None
        )
        self.swept_at = Gauge(
            "elizacloud_last_sweep_timestamp_seconds", "When the last sweep was through", registry=None
        )
        self.nodes = Gauge("elizacloud_headscale_nodes", "Nodes that Headscale lists, others' too", registry=None)
        self.addresses = Gauge(
            "elizacloud_headscale_addresses_used",
            "IPv4 addresses of headscale_ipv4_prefix that nodes have",
            registry=None,
        )
        self.pool = Gauge(
            "elizacloud_headscale_addresses", "IPv4 addresses that headscale_ipv4_prefix has", registry=None
        )
        self.keys = Gauge("elizacloud_headscale_keys", "Pre-auth keys that Headscale lists, others' too", registry=None)
        self.call_seconds = Histogram(
            "elizacloud_headscale_call_seconds",
            "Calls to Headscale, the failed ones too",
            ["call"],
            buckets=_CALL_SECONDS,
            registry=None,
        )
        self.call_errors = Counter(
            "elizacloud_headscale_errors", "Calls to Headscale that failed", ["call", "code"], registry=None
        )

    @property
    def counted(self) -> tuple[MetricWrapperBase, ...]:
        """All but the agents by state."""
        return tuple(value for value in vars(self).values() if isinstance(value, MetricWrapperBase))

    def collect(self) -> Iterator[Metric]:
        if self.states is not None:
            with suppress(Error, TimeoutError):  # what the store does not tell is left out; all else is told
                yield agents_by_state(self.states())
        for collector in self.counted:
            yield from collector.collect()


def agents_by_state(counts: dict[State, int]) -> Metric:
    family = GaugeMetricFamily(
        "elizacloud_agents", "Agents by state; tombstones are those that still owe a removal", labels=["state"]
    )
    for state in State:
        if state is not State.GONE:
            family.add_metric([state.value], counts.get(state, 0))
    return family


class _Measured:
    """A Headscale whose calls are timed and whose errors are counted."""

    def __init__(self, headscale: Headscale, metrics: Metrics) -> None:
        self._headscale = headscale
        self._metrics = metrics

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Awaitable[Any]] = getattr(self._headscale, name)

        async def measured(*arguments: Any, **named: Any) -> Any:
            began = time.perf_counter()
            try:
                return await method(*arguments, **named)
            except Error as error:
                self._metrics.call_errors.labels(name, error.reason).inc()
                raise
            finally:
                self._metrics.call_seconds.labels(name).observe(time.perf_counter() - began)

        return measured


def measured(headscale: Headscale, metrics: Metrics) -> Headscale:
    return cast(Headscale, _Measured(headscale, metrics))
