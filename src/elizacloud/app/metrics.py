"""Prometheus metrics on a listener of their own, which nothing on the front door leads to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from prometheus_client import CollectorRegistry, Metric, PlatformCollector, ProcessCollector, start_http_server
from prometheus_client.registry import Collector

from elizacloud.errors import Misconfigured

Families = list[Any]
"""Metric families as JSON: name, documentation, type, and samples of name, labels, value."""

WORKER_LABEL = "worker"


@contextmanager
def serve_metrics(listen: str | None, *collectors: Collector) -> Iterator[None]:
    """Serve these at `host:port` while the block runs; nothing when `listen` is None."""
    if listen is None:
        yield
        return
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    host, _, port = listen.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise Misconfigured(f"cannot serve metrics on {listen}: {error.strerror}; change that setting") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class ProcessMetrics:
    """What one process counts, and the kernel of it: memory, CPU, descriptors."""

    def __init__(self, *collectors: Collector) -> None:
        self._collectors = (*collectors, ProcessCollector(registry=None), PlatformCollector(registry=None))

    def families(self) -> Families:
        return [
            [
                metric.name,
                metric.documentation,
                metric.type,
                [[sample.name, sample.labels, sample.value] for sample in metric.samples],
            ]
            for collector in self._collectors
            for metric in collector.collect()
        ]


class OneProcess(Collector):
    """What this process counts, and the kernel of it, without a label that says whose it is."""

    def __init__(self, *collectors: Collector) -> None:
        self._collectors = (*collectors, ProcessCollector(registry=None), PlatformCollector(registry=None))

    def collect(self) -> Iterable[Metric]:
        for collector in self._collectors:
            yield from collector.collect()


class AllProcesses(Collector):
    """The metrics of several processes, each sample with the label `worker`: nothing is summed up that may be reset."""

    def __init__(
        self, ask: Callable[[], Coroutine[Any, Any, Mapping[str, Families]]], loop: asyncio.AbstractEventLoop
    ) -> None:
        """`ask` runs on `loop`, and is bounded in time; `collect` is called by the listener's threads."""
        self._ask = ask
        self._loop = loop

    def collect(self) -> Iterable[Metric]:
        return merged(asyncio.run_coroutine_threadsafe(self._ask(), self._loop).result())


def merged(sources: Mapping[str, Families]) -> list[Metric]:
    metrics: dict[str, Metric] = {}
    for worker, families in sources.items():
        for name, documentation, kind, samples in families:
            metric = metrics.setdefault(name, Metric(name, documentation, kind))
            for sample, labels, value in samples:
                metric.add_sample(sample, {**labels, WORKER_LABEL: worker}, value)
    return list(metrics.values())
