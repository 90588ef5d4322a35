"""Prometheus metrics on a listener of their own, which nothing on the front door leads to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, start_http_server
from prometheus_client.registry import Collector

from elizacloud.errors import Misconfigured


@contextmanager
def serve_metrics(listen: str | None, *collectors: Collector) -> Iterator[None]:
    """Serve these, and the process's own, at `host:port` while the block runs; nothing when `listen` is None."""
    if listen is None:
        yield
        return
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    host, _, port = listen.rpartition(":")
    try:
        server, thread = start_http_server(int(port), host.strip("[]"), registry)
    except OSError as error:
        raise Misconfigured(f"cannot serve metrics on {listen}: {error.strerror}; change metrics_listen") from error
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
