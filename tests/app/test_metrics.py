"""Metrics of several processes at one address: each sample says whose it is, and nothing is mixed up."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.registry import Collector

from elizacloud.app.metrics import Families, ProcessMetrics, merged


class Shown(Collector):
    def __init__(self, sources: dict[str, Families]) -> None:
        self._sources = sources

    def collect(self) -> list[object]:  # type: ignore[override]
        return [*merged(self._sources)]


def counted(requests: int) -> Families:
    registry = CollectorRegistry()
    counter = Counter("requests", "Requests", ["outcome"], registry=registry)
    counter.labels("2xx").inc(requests)
    Histogram("seconds", "Time", buckets=(1.0,), registry=registry).observe(0.5)
    return ProcessMetrics(registry).families()


def test_samples_of_one_name_stand_together_and_say_whose_they_are() -> None:
    registry = CollectorRegistry()
    registry.register(Shown({"supervisor": ProcessMetrics().families(), "1": counted(2), "2": counted(3)}))
    text = generate_latest(registry).decode()
    assert 'requests_total{outcome="2xx",worker="1"} 2.0' in text
    assert 'requests_total{outcome="2xx",worker="2"} 3.0' in text
    assert 'seconds_bucket{le="1.0",worker="2"} 1.0' in text
    for name in ("requests_total counter", "seconds histogram", "process_open_fds gauge"):
        assert text.count(f"# TYPE {name}") == 1
    assert text.count("process_open_fds{") == 3
