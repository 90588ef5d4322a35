"""`elizacloud relay`: the supervisor of a relay host, beside a tailscaled that is already on the tailnet.

It owns the listening socket, keeps `workers` processes that share it (relay_worker.py), watches the netmap for all of
them and gathers their metrics. SIGHUP replaces the workers one at a time, with the settings and the program as they are
then; SIGTERM drains. Nothing here ever restarts the tailscaled, which agents would pay for while Headscale is down.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

import structlog
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from elizacloud.app.certificate import certificate_of
from elizacloud.app.data_dir import DataDir, open_data_dir, private_dir
from elizacloud.app.listening import listening_socket, url_of
from elizacloud.app.metrics import AllProcesses, Families, ProcessMetrics, serve_metrics
from elizacloud.app.network_health import NetworkHealth
from elizacloud.app.running import Signals, run_until_signal
from elizacloud.app.tailnet_mode import check_dialling
from elizacloud.app.workers import WorkerCommand, Workers
from elizacloud.errors import Misconfigured
from elizacloud.relay.compiled import COMPILED
from elizacloud.settings import Settings, child_environment
from elizacloud.tailnet.feed import NetmapFeed
from elizacloud.tailnet.localapi import LocalApi
from elizacloud.tailnet.watcher import NetmapWatcher

NOT_THE_RELAYS = ("headscale_api_key", "database_url", "operator_token")
"""Secrets that the processes which face the internet have no use for."""
SUPERVISOR = "supervisor"

log = structlog.get_logger()


def run(settings: Settings, *, config: Path | None = None) -> None:
    """Run until SIGINT or SIGTERM, then let what is in flight finish; workers read the settings file `config`, too.

    Raises an Error when it cannot start.
    """
    data = open_data_dir(settings)

    run_until_signal(partial(_run, settings, data, config))


async def _run(settings: Settings, data: DataDir, config: Path | None, signals: Signals) -> None:
    check_dialling(settings)
    tls = certificate_of(settings) is not None
    data.secret_key(settings)
    private_dir(data.sockets / "relay")
    tailscaled = LocalApi(settings.tailscaled_socket or data.sockets / "relay" / "tailscaled.sock")
    watcher = NetmapWatcher(tailscaled)
    feed = NetmapFeed(watcher)
    with _listener(settings) as listener:
        async with asyncio.TaskGroup() as tasks:
            workers = Workers(tasks, _command(settings, data, config, listener), feed)
            network = NetworkHealth(tailscaled)
            own = ProcessMetrics(_OwnMetrics(watcher, workers), network)

            async def families() -> Mapping[str, Families]:
                await network.look()
                return {SUPERVISOR: own.families(), **await workers.metrics()}

            every = AllProcesses(families, asyncio.get_running_loop())
            with serve_metrics(settings.metrics_listen, every):
                beside = [
                    tasks.create_task(watcher.run(), name="netmap"),
                    tasks.create_task(feed.run(), name="netmap feed"),
                ]
                workers.start(settings.workers)
                replacing = tasks.create_task(_replace_when_told(workers, signals.renew), name="replace workers")
                log.info(
                    "relay started",
                    url=url_of(listener, tls=tls),
                    pid=os.getpid(),
                    workers=settings.workers,
                    compiled=COMPILED,
                )
                await signals.stop.wait()
                log.info("relay draining")
                replacing.cancel()
                listener.close()
                await workers.stop()
                for task in beside:
                    task.cancel()
    await tailscaled.close()


async def _replace_when_told(workers: Workers, told: asyncio.Event) -> NoReturn:
    while True:
        await told.wait()
        told.clear()
        log.info("replacing workers")
        if await workers.replace():
            log.info("workers replaced")


def _command(settings: Settings, data: DataDir, config: Path | None, listener: socket.socket) -> WorkerCommand:
    """Workers read the settings anew, but for what this process was told by flags."""

    log_json = not sys.stderr.isatty() if settings.log_json is None else settings.log_json
    chosen = {
        "data_dir": str(data.path),
        "tailnet_mode": settings.tailnet_mode,
        "log_json": str(log_json).lower(),
    }
    return WorkerCommand(
        (sys.executable, "-m", "elizacloud.app.relay_worker"),
        child_environment(chosen, without=NOT_THE_RELAYS, config=config),
        listener,
        grace_seconds=settings.drain_seconds + 5,
    )


class _OwnMetrics(Collector):
    def __init__(self, watcher: NetmapWatcher, workers: Workers) -> None:
        self._watcher = watcher
        self._workers = workers

    def collect(self) -> Sequence[Metric]:
        watcher, workers = self._watcher, self._workers
        return supervisor_metrics(
            ready=workers.ready, starts=workers.starts, followed=watcher.netmap.known, losses=watcher.losses
        )


def supervisor_metrics(*, ready: int, starts: int, followed: bool, losses: int) -> Sequence[Metric]:
    """What the supervisor tells of workers and tailnet."""
    return (
        GaugeMetricFamily("elizacloud_relay_workers_ready", "Workers that serve now", value=ready),
        CounterMetricFamily("elizacloud_relay_worker_starts", "Times that a worker was started", value=starts),
        GaugeMetricFamily(
            "elizacloud_relay_tailnet_followed",
            "1 while tailscaled answers and its netmap is followed",
            value=int(followed),
        ),
        CounterMetricFamily(
            "elizacloud_relay_tailnet_losses",
            "Times that it was followed no more: tailscaled ended, hung, or cut us off",
            value=losses,
        ),
    )


def _listener(settings: Settings) -> socket.socket:
    if settings.listen_fd is None:
        return listening_socket(settings.host, settings.port)
    try:
        inherited = socket.socket(fileno=settings.listen_fd)
        inherited.getsockname()
    except OSError as error:
        raise Misconfigured(
            f"cannot listen on descriptor {settings.listen_fd}: it is no inherited socket ({error.strerror}); correct --listen-fd"
        ) from error
    inherited.setblocking(False)
    return inherited
