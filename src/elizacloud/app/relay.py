"""`elizacloud relay`: one worker of the relay, beside a tailscaled that is already on the tailnet.

It needs the listening socket (its supervisor's, or one of its own), the LocalAPI socket of the relay's tailscaled and the
link to the control plane. Without the link it serves what it last knew.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from functools import partial

import structlog
import uvloop

from elizacloud.app.data_dir import DataDir, open_data_dir
from elizacloud.app.failing import first_error
from elizacloud.app.listening import listening_socket, url_of
from elizacloud.app.metrics import serve_metrics
from elizacloud.cipher import Cipher
from elizacloud.errors import Misconfigured
from elizacloud.model import DEFAULT_CELL_ID
from elizacloud.relay.dial import LocalApiDialer
from elizacloud.relay.limits import LimitSettings
from elizacloud.relay.link.client import LinkClient
from elizacloud.relay.metrics import Metrics
from elizacloud.relay.tls import ServerCertificate
from elizacloud.relay.worker import Worker, WorkerSettings
from elizacloud.settings import Settings
from elizacloud.tailnet.localapi import LocalApi
from elizacloud.tailnet.path import find_path
from elizacloud.tailnet.watcher import NetmapWatcher

PATH_SECONDS = 3.0

log = structlog.get_logger()


def run(settings: Settings) -> None:
    """Run until SIGINT or SIGTERM, then let what is in flight finish. Raises an Error when it cannot start."""
    data = open_data_dir(settings)
    try:
        uvloop.run(_run(settings, data))
    except BaseExceptionGroup as group:
        raise first_error(group) from group


async def _run(settings: Settings, data: DataDir) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    certificate = _certificate(settings)
    listener = _listener(settings)
    tailscaled = LocalApi(settings.tailscaled_socket or data.sockets / "relay" / "tailscaled.sock")
    watcher = NetmapWatcher(tailscaled)
    link = LinkClient(
        settings.link_socket or data.sockets / "link.sock",
        data.relay / "upstreams.sealed",
        Cipher(data.secret_key(settings)),
        name=f"{socket.gethostname()}-1",
        offline_grace_seconds=settings.offline_grace_seconds,
    )
    metrics = Metrics()
    worker = Worker(
        WorkerSettings(
            relay_domain=settings.relay_domain,
            api_socket=settings.api_socket or data.sockets / "api.sock",
            cell_id=DEFAULT_CELL_ID,
            headers_timeout_seconds=settings.headers_timeout_seconds,
            dial_timeout_seconds=settings.dial_timeout_seconds,
            first_byte_timeout_seconds=settings.first_byte_timeout_seconds,
            wake_hold_seconds=settings.wake_hold_seconds,
            drain_seconds=settings.drain_seconds,
            cors_origins=settings.cors_origins,
            trusted_proxies=settings.trusted_proxies,
            access_log=settings.access_log,
            body_timeout_seconds=settings.body_timeout_seconds,
            body_bytes_per_second=settings.body_bytes_per_second,
            max_body_bytes=settings.max_body_bytes,
            limits=LimitSettings(
                agent_in_flight=settings.agent_in_flight,
                owner_in_flight=settings.owner_in_flight,
                agent_streams=settings.agent_streams,
                owner_streams=settings.owner_streams,
                agent_requests_per_second=settings.agent_requests_per_second,
                owner_requests_per_second=settings.owner_requests_per_second,
                agent_bytes_per_second=settings.agent_bytes_per_second,
                owner_bytes_per_second=settings.owner_bytes_per_second,
                connections_per_address=settings.connections_per_address,
                headless_per_address=settings.headless_per_address,
                dials_per_agent=settings.dials_per_agent,
            ),
        ),
        link,
        watcher.netmap,
        LocalApiDialer(tailscaled.socket),
        metrics,
        find_path=partial(find_path, tailscaled, within_seconds=PATH_SECONDS),
        certificate=certificate,
    )
    watcher.on_change(worker.netmap_changed)
    with serve_metrics(settings.metrics_listen, metrics):
        await _serve(worker, watcher, listener, stop, tls=certificate is not None)
    await tailscaled.close()


async def _serve(
    worker: Worker, watcher: NetmapWatcher, listener: socket.socket, stop: asyncio.Event, *, tls: bool
) -> None:
    async with asyncio.TaskGroup() as tasks:
        serving = [
            tasks.create_task(watcher.run(), name="netmap"),
            tasks.create_task(worker.run([listener]), name="worker"),
        ]
        url = url_of(listener)
        if tls:
            url = url.replace("http", "https", 1)
        log.info("relay started", url=url, pid=os.getpid())
        await stop.wait()
        log.info("relay draining")
        await worker.drain()
        for task in serving:
            task.cancel()


def _certificate(settings: Settings) -> ServerCertificate | None:
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise Misconfigured("cannot serve TLS: give both tls_certificate_file and tls_key_file, or neither")
    return ServerCertificate(certificate, key)


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
