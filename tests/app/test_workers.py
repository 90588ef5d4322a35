"""Workers as processes: numbers, readiness, replacement, and what becomes of those that hang. The work itself is a script."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from elizacloud.app import workers as module
from elizacloud.app.workers import WorkerCommand, Workers
from elizacloud.settings import child_environment
from elizacloud.tailnet import LocalApi, NetmapWatcher
from elizacloud.tailnet.feed import NetmapFeed

WORKER = """
import argparse, json, os, socket, sys
parser = argparse.ArgumentParser()
for name in ("number", "listen-fd", "channel-fd", "output-fd"):
    parser.add_argument("--" + name, type=int)
given = parser.parse_args()
behaviour = open(sys.argv[0] + ".how").read()
if behaviour == "exit":
    sys.exit(1)
channel = socket.socket(fileno=given.channel_fd).makefile("rw")
def say(message):
    channel.write(json.dumps(message) + "\\n")
    channel.flush()
say({"ready": True})
for line in channel:
    message = json.loads(line)
    if "metrics" in message:
        say({"metrics": message["metrics"], "families": [["n", "", "gauge", [["n", {}, given.number]]]]})
    if "beat" in message and behaviour != "hang":
        say(message)
"""


class Host:
    def __init__(self, directory: Path, tasks: asyncio.TaskGroup, listener: socket.socket) -> None:
        self.script = directory / "worker.py"
        self.script.write_text(WORKER)
        self.become("serve")
        self.feed = NetmapFeed(NetmapWatcher(LocalApi(directory / "nobody.sock")))
        command = WorkerCommand((sys.executable, self.script), child_environment(), listener, grace_seconds=5)
        self.workers = Workers(tasks, command, self.feed)

    def become(self, behaviour: str) -> None:
        """What every worker that starts from now on does."""
        self.script.with_name("worker.py.how").write_text(behaviour)

    async def ready(self, count: int) -> None:
        async with asyncio.timeout(20):
            while self.workers.ready != count:
                await asyncio.sleep(0)

    async def numbers(self) -> list[str]:
        return list(await self.workers.metrics())


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with asyncio.TaskGroup() as tasks:
            made = Host(tmp_path, tasks, listener)
            made.workers.start(2)
            await made.ready(2)
            yield made
            await made.workers.stop()


async def test_a_replaced_worker_leaves_its_number_to_a_later_one(host: Host) -> None:
    assert await host.numbers() == ["1", "2"]
    assert await host.workers.replace()
    assert await host.numbers() == ["1", "3"], "3 came for 1, and then 1 was free for the successor of 2"
    assert host.workers.starts == 4


async def test_when_the_new_one_exits_the_old_ones_stay(host: Host) -> None:
    host.become("exit")
    assert not await host.workers.replace()
    assert await host.numbers() == ["1", "2"]


async def test_one_that_hangs_is_killed_and_comes_back(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_UNANSWERED", 2)
    host.become("hang")
    assert await host.workers.replace()
    host.become("serve")
    monkeypatch.setattr("elizacloud.tailnet.feed.BEAT_SECONDS", 0.05)
    async with asyncio.TaskGroup() as tasks:
        beating = tasks.create_task(host.feed.run(), name="feed")
        async with asyncio.timeout(20):
            while host.workers.starts < 6:
                await asyncio.sleep(0)
        beating.cancel()
    await host.ready(2)
