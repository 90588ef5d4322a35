"""How long a request takes that wakes its agent: from a pause, and from a stop. `python -m bench.wake [ROUNDS]`.

On the process runtime, unless `measure` is given a cloud with another one; the clock runs at the client, from the request to
the end of its answer.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr
from scripts.cloud import running_cloud

from bench.report import facts, markdown
from elizacloud.client import Client
from elizacloud.states import State

RESULTS = Path(__file__).parent / "results"
ROUNDS = 50
WITHIN_SECONDS = 60


@dataclass
class Wakes:
    paused_seconds: list[float] = field(default_factory=list)
    stopped_seconds: list[float] = field(default_factory=list)

    def rows(self) -> list[tuple[str, str, str]]:
        """What was measured, how long it took, and the target."""
        return [
            ("wake from pause", spread(self.paused_seconds), "p50 <= 0.12 s"),
            ("wake from stop", spread(self.stopped_seconds), "p50 <= 0.7 s, p99 <= 1.5 s"),
        ]


async def measure(client: Client, agent_id: str, rounds: int = ROUNDS) -> Wakes:
    """On a ready agent of whatever runtime; it is ready again at the end."""
    wakes = Wakes()
    for _ in range(rounds):
        await client.pause_agent(agent_id)
        await client.wait_until(agent_id, {State.PAUSED}, within_seconds=WITHIN_SECONDS)
        wakes.paused_seconds.append(await _request(client, agent_id))
    for _ in range(rounds):
        await client.sleep_agent(agent_id)
        await client.wait_until(agent_id, {State.STOPPED}, within_seconds=WITHIN_SECONDS)
        wakes.stopped_seconds.append(await _request(client, agent_id))
    return wakes


async def _request(client: Client, agent_id: str) -> float:
    began = time.perf_counter()
    async with client.relay("GET", agent_id, "/api/status") as answer:
        await answer.read()
    return time.perf_counter() - began


def spread(seconds: Sequence[float]) -> str:
    ordered = sorted(seconds)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"p50 {statistics.median(ordered):.3f} s, p99 {p99:.3f} s, {ordered[0]:.3f} - {ordered[-1]:.3f} s"


async def on_processes(rounds: int) -> tuple[Wakes, str]:
    """The first Headscale that ELIZACLOUD_HEADSCALE_BIN names, else whatever `up` takes."""
    headscale = os.environ.get("ELIZACLOUD_HEADSCALE_BIN", "auto").split(":")[0]
    directory = Path(tempfile.mkdtemp(prefix="ec-bench-", dir="/tmp"))
    try:
        async with (
            running_cloud(directory, headscale=headscale) as running,
            Client(running["url"], SecretStr(running["apiToken"])) as client,
        ):
            agent = await client.create_agent("sleeper", wait_seconds=WITHIN_SECONDS)
            await client.wait_until(agent.agent_id, {State.READY}, within_seconds=WITHIN_SECONDS)
            server = running["headscale"]
            return await measure(client, agent.agent_id, rounds), f"{server['kind']} {server['version']}"
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    wakes, server = asyncio.run(on_processes(rounds))
    table = markdown(("what", "request to answer", "target"), wakes.rows())
    text = f"# Waking agents, process runtime, {server}\n\n{facts()}, {rounds} rounds each.\n\n{table}"
    print(text)
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "wake.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
