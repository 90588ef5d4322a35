"""`python -m elizacloud.app.relay_worker`: one worker of the relay, a child of `elizacloud relay`.

It inherits the listening socket and a channel to its supervisor, and reads the settings itself. It takes connections
once it knows a table of upstreams and the netmap, or START_SECONDS have passed: what needs neither, such as the API,
must not wait for ever. Without the link it serves what it last knew; without its supervisor it drains and ends.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog
import uvloop

from elizacloud.app.certificate import certificate_of
from elizacloud.app.channel import Channel, Message
from elizacloud.app.collector import spare_the_collector
from elizacloud.app.data_dir import DataDir, open_data_dir
from elizacloud.app.metrics import ProcessMetrics
from elizacloud.app.running import Signals, run_until_signal
from elizacloud.app.tailnet_mode import agent_dialer
from elizacloud.cipher import Cipher
from elizacloud.errors import Error
from elizacloud.log import configure_logging
from elizacloud.model import DEFAULT_CELL_ID
from elizacloud.relay.exposition import Exposition
from elizacloud.relay.limits import LimitSettings
from elizacloud.relay.link.client import LinkClient
from elizacloud.relay.metrics import Metrics
from elizacloud.relay.worker import LINGER_SECONDS, Worker, WorkerSettings
from elizacloud.settings import Settings, load_settings
from elizacloud.tailnet.feed import NetmapFollower
from elizacloud.tailnet.localapi import LocalApi
from elizacloud.tailnet.path import find_path

START_SECONDS = 5.0
PATH_SECONDS = 3.0
SUCCEEDED_LINGER_SECONDS = 5.0
"""How long a client that is idle may think of another request, when nobody waits for this worker's end."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Place:
    """What the supervisor gave this worker."""

    number: int
    listen_fd: int
    channel_fd: int
    output_fd: int
    """Its standard output and error, from now on."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m elizacloud.app.relay_worker", description=__doc__)
    for option in ("--number", "--listen-fd", "--channel-fd", "--output-fd"):
        parser.add_argument(option, type=int, required=True)
    place = Place(**vars(parser.parse_args()))
    try:
        settings = load_settings().settings
        for standard in (1, 2):
            os.dup2(place.output_fd, standard)
        os.close(place.output_fd)
        configure_logging(level=settings.log_level, json=settings.log_json, process=f"relay worker {place.number}")
        run(settings, place)
    except Error as error:
        sys.exit(f"elizacloud: {error}")


def run(settings: Settings, place: Place) -> None:
    """Run until SIGTERM, SIGINT or the end of the supervisor, then let what is in flight finish. Raises an Error."""
    run_until_signal(partial(_run, settings, open_data_dir(settings), place), runner=uvloop.run)


async def _run(settings: Settings, data: DataDir, place: Place, signals: Signals) -> None:
    tailscaled = LocalApi(settings.tailscaled_socket or data.sockets / "relay" / "tailscaled.sock")
    link = LinkClient(
        settings.link_socket or data.sockets / "link.sock",
        data.relay / "upstreams.sealed",
        Cipher(data.secret_key(settings)),
        # The pid, because one that drains, orphaned, may still be linked under this number.
        name=f"{socket.gethostname()}-{place.number}-{os.getpid()}",
        offline_grace_seconds=settings.offline_grace_seconds,
    )
    metrics = Metrics()
    counted = ProcessMetrics(Exposition(metrics))
    follower: NetmapFollower
    succeeded = False

    def hear(message: Message) -> None:
        nonlocal succeeded
        if "metrics" in message:
            channel.send({"metrics": message["metrics"], "families": counted.families()})
        elif "succeeded" in message:
            succeeded = True
        else:
            if "beat" in message:
                channel.send(message)
            follower.hear(message)

    def lost() -> None:
        follower.lose("the relay's supervisor is gone")
        signals.stop.set()

    channel = Channel(hear, lost)
    follower = NetmapFollower(channel.send)
    dialer, dialling = agent_dialer(settings, follower.netmap, tailscaled.socket)
    worker = Worker(
        _worker_settings(settings, data),
        link,
        follower.netmap,
        dialer,
        metrics,
        find_path=partial(find_path, tailscaled, within_seconds=PATH_SECONDS),
        certificate=certificate_of(settings),
    )
    follower.on_change(worker.netmap_changed)
    listeners = [socket.socket(fileno=place.listen_fd), _own_address(data.sockets / "relay", place.number)]
    with dialling:
        await channel.open(socket.socket(fileno=place.channel_fd))
        async with asyncio.TaskGroup() as tasks:
            serving = [
                tasks.create_task(follower.run(), name="netmap"),
                tasks.create_task(_serve(worker, follower, listeners, channel), name="worker"),
            ]
            await signals.stop.wait()
            log.info("worker draining")
            await worker.drain(linger_seconds=SUCCEEDED_LINGER_SECONDS if succeeded else LINGER_SECONDS)
            for task in serving:
                task.cancel()
    channel.close()
    await tailscaled.close()


async def _serve(
    worker: Worker, follower: NetmapFollower, listeners: Sequence[socket.socket], channel: Channel
) -> None:
    accepting = asyncio.Event()

    async def until_known() -> None:
        await worker.until_table_known()
        await follower.until_known()

    async def until_it_makes_sense() -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                await until_known()

    async def tell_ready() -> None:
        await accepting.wait()
        await until_known()
        channel.send({"ready": True})

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(tell_ready(), name="ready")
        spare_the_collector()
        await worker.run(listeners, until=until_it_makes_sense, started=accepting.set)


def _worker_settings(settings: Settings, data: DataDir) -> WorkerSettings:
    return WorkerSettings(
        relay_domain=settings.relay_domain,
        public_url=settings.public_url,
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
    )


def _own_address(directory: Path, number: int) -> socket.socket:
    """Where this one worker can be asked: as the front door, without TLS, and only by our own user."""
    path = directory / f"worker-{number}.sock"
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    path.chmod(0o600)
    listener.listen()
    return listener


if __name__ == "__main__":
    main()
