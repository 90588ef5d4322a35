"""`make demo`: the whole cloud on free ports, one agent on a real tailnet, requests to it through the relay, and nothing left.

Every step is what a user would do: `elizacloud up` as a process, then the public API with the token that it printed.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from elizacloud.app.control_server import obtain
from elizacloud.binaries import Binaries, show_progress
from elizacloud.client import Client
from elizacloud.errors import Error, NotFound
from elizacloud.log import configure_logging
from elizacloud.settings import load_settings
from elizacloud.states import State
from scripts.cloud import running_cloud

console = Console()


@dataclass
class Steps:
    """What was done and how long it took; a line as each ends, a table at the end."""

    rows: list[tuple[str, float, str]] = field(default_factory=list)

    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Time the block; what it appends to the list is shown beside the step."""
        facts: list[str] = []
        began = time.monotonic()
        if console.is_terminal:
            with console.status(name):
                yield facts
        else:
            yield facts
        seconds = time.monotonic() - began
        self.rows.append((name, seconds, " ".join(facts)))
        console.print(f"  [green]✓[/] {name} [dim]{seconds:.2f} s[/]", highlight=False)

    def table(self) -> Table:
        table = Table(title="elizacloud demo", title_justify="left", show_footer=True)
        table.add_column("step", "total")
        table.add_column("seconds", f"{sum(seconds for _, seconds, _ in self.rows):.2f}", justify="right")
        table.add_column("seen")
        for name, seconds, facts in self.rows:
            table.add_row(name, f"{seconds:.2f}", facts)
        return table


async def demo() -> None:
    steps = Steps()
    with steps.step("find or build tailscaled and a control server") as facts, show_progress() as progress:
        settings = load_settings().settings
        tailscaled = await Binaries.from_settings(settings, progress).tailscaled()
        server = await obtain(settings, Path("/nonexistent"), progress)
        facts.append(f"tailscaled {tailscaled.version}, {getattr(server, 'kind', 'headscale')}")
    directory = Path(tempfile.mkdtemp(prefix="elizacloud-demo-"))
    try:
        async with AsyncExitStack() as cloud:
            with steps.step("bring the cloud up") as facts:
                running = await cloud.enter_async_context(running_cloud(directory))
                facts.append(f"{running['url']}, {running['headscale']['kind']} {running['headscale']['version']}")
            async with Client(running["url"], SecretStr(running["apiToken"])) as client:
                await _main_job(client, steps)
            with steps.step("stop everything"):
                await cloud.aclose()
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    console.print(steps.table())


async def _main_job(client: Client, steps: Steps) -> None:
    with steps.step("create an agent: key, process, join") as facts:
        agent = await client.create_agent("demo", config={"theme": "demo"})
        facts.append(f"{agent.agent_id} at {agent.ip}")
    with steps.step("reachable through the relay") as facts:
        agent = await client.wait_until(agent.agent_id, {State.READY}, within_seconds=60)
        facts.append(agent.status)
    with steps.step("GET /api/health over WireGuard") as facts:
        health = await _json(client, "GET", agent.agent_id, "/api/health")
        facts.append(f"ready={health['ready']}")
    with steps.step("POST /api/connectors") as facts:
        body = {"name": "discord", "config": {"botToken": "demo"}}
        answer = await _json(client, "POST", agent.agent_id, "/api/connectors", body)
        facts.append(json.dumps(answer)[:60])
    with steps.step("POST /api/chat/stream, server-sent events") as facts:
        tokens = [event async for event in _events(client, agent.agent_id, {"text": "hello"})]
        facts.append(f"{len(tokens)} events, last {tokens[-1].get('type')}")
    with steps.step("delete it: process, node, key, state") as facts:
        await client.delete_agent(agent.agent_id)
        with suppress(NotFound):
            await client.wait_until(agent.agent_id, {State.GONE}, within_seconds=30)
        facts.append("seen gone twice")


async def _json(client: Client, method: str, agent_id: str, route: str, body: Any = None) -> dict[str, Any]:
    async with client.relay(method, agent_id, route, body=body) as answer:
        return dict(await answer.json())


async def _events(client: Client, agent_id: str, body: Any) -> AsyncIterator[dict[str, Any]]:
    async with client.relay("POST", agent_id, "/api/chat/stream", body=body) as answer:
        async for line in answer.content:
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))


def main() -> int:
    configure_logging(level="warning")
    try:
        asyncio.run(demo())
    except KeyboardInterrupt:
        console.print("stopped; nothing is left running")
        return 130
    except Error as error:
        console.print(f"elizacloud: {error}", style="red", highlight=False)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
