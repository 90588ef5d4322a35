"""A hundred real agents, each with its own tailscaled, on one control server: how fast each joins, and what all cost at rest.

    python -m bench.nodes [COUNT]

On the first Headscale that ELIZACLOUD_HEADSCALE_BIN names, else on whatever `up` takes. Printed and saved.

Nothing may make or remove network links of this machine meanwhile, as tests on Docker do: at each one every tailscaled binds
anew, reconnects and tells the server. A link in three seconds costs 0.4% of a core for each of them, on any control server
alike; without, they take 0.02%.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from pydantic import SecretStr
from scripts.cloud import running_cloud

from bench.report import facts, markdown, show
from elizacloud.client import Client
from elizacloud.states import State

RESULTS = Path(__file__).parent / "results"
COUNT = 100
NEEDED_BYTES = 120 * 1000 * 1000
"""For each agent: a tailscaled, and the stub agent."""
SETTLE_SECONDS, STEADY_SECONDS = 20.0, 30.0
READY_SECONDS = 60.0
PARTS = {
    "agents' tailscaled": ("/agents/", "tailscaled"),
    "agents": ("elizacloud.stub_agent",),
    "relay's tailscaled": ("/relay/", "tailscaled"),
    "control server": ("devcontrol",),
    "Headscale": ("headscale", "serve"),
    "process host": ("elizacloud", "process-host"),
    "control plane": ("elizacloud", "serve"),
    "relay": ("elizacloud", "relay"),
}


async def measure(count: int) -> tuple[str, str, list[tuple[str, str, str]]]:
    """The control server's name and kind, and the rows of the table."""
    setting = os.environ.get("ELIZACLOUD_HEADSCALE_BIN", "auto").split(":")[0]
    directory = Path(tempfile.mkdtemp(prefix="ec-nodes-", dir="/tmp"))
    try:
        async with running_cloud(directory, headscale=setting) as running:
            server = running["headscale"]
            async with Client(running["url"], SecretStr(running["apiToken"])) as client:
                joins, readies = await _create(client, count)
            await asyncio.sleep(SETTLE_SECONDS)
            before, began = _cpu_of(directory), time.monotonic()
            await asyncio.sleep(STEADY_SECONDS)
            after, took = _cpu_of(directory), time.monotonic() - began
            memory = _memory_of(directory)
        rows = [
            (f"join, of the first {count // 10}", _spread(joins[: count // 10]), ""),
            (f"join, of the last {count // 10}", _spread(joins[-(count // 10) :]), ""),
            (f"join, of all {count}", _spread(joins), "p50 <= 0.6 s"),
            ("create to ready", _spread(readies), ""),
        ]
        total = 0.0
        for part in sorted(after):
            share = (after[part] - before[part]) / took
            total += share
            rows.append((f"CPU at rest: {part}", f"{share:.2%} of a core, {memory[part] / 1e6:.0f} MB", ""))
        rows.append(("CPU at rest: all", f"{total:.1%} of a core", "near zero"))
        return f"{server['kind']} {server['version']}", server["kind"], rows
    finally:
        shutil.rmtree(directory, ignore_errors=True)


async def _create(client: Client, count: int) -> tuple[list[float], list[float]]:
    joins, readies = [], []
    for number in range(count):
        began = time.monotonic()
        agent = await client.create_agent(f"node-{number}", wait_seconds=READY_SECONDS)
        await client.wait_until(agent.agent_id, {State.READY}, within_seconds=READY_SECONDS)
        readies.append(time.monotonic() - began)
        times = {event.state_to: event.at async for event in client.events(agent.agent_id, following=False)}
        joins.append((times["joined"] - times["started"]).total_seconds())
    return joins, readies


def _processes(directory: Path) -> dict[int, str]:
    """By process id of all that the cloud in this directory started: which part it is."""
    parents: dict[int, int] = {}
    lines: dict[int, str] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        lines[int(entry.name)], parents[int(entry.name)] = line, parent
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, parent in parents.items():
        children[parent].append(pid)
    ours = [pid for pid, line in lines.items() if f"--data-dir {directory}" in line]
    for pid in ours:
        ours += [child for child in children[pid] if child not in ours]
    return {pid: _part_of(lines[pid]) for pid in ours}


def _part_of(line: str) -> str:
    return next((part for part, words in PARTS.items() if all(word in line for word in words)), "the rest")


def _cpu_of(directory: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    tick = os.sysconf("SC_CLK_TCK")
    for pid, part in _processes(directory).items():
        try:
            values = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        found[part] += (int(values[11]) + int(values[12])) / tick  # type: ignore[assignment]
    return found


def _memory_of(directory: Path) -> Counter[str]:
    found: Counter[str] = Counter()
    for pid, part in _processes(directory).items():
        try:
            found[part] += int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        except OSError:
            continue
    return found


def _spread(seconds: list[float]) -> str:
    return f"p50 {statistics.median(seconds):.2f} s ({min(seconds):.2f} - {max(seconds):.2f})"


def main() -> int:
    count = int(sys.argv[1]) if sys.argv[1:] else COUNT
    load = os.getloadavg()[0]
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if free < count * NEEDED_BYTES:
        print(f"cannot run {count} agents: {free / 1e9:.1f} GB of memory are free", file=sys.stderr)
        return 1
    name, kind, rows = asyncio.run(measure(count))
    title = f"{count} agents on {name} ({facts(load_before=load)})"
    head = ("what", "measured", "target")
    show(title, head, rows)
    if not sys.argv[1:]:
        (RESULTS / f"nodes-{kind}.md").write_text(f"# {title}\n\n{markdown(head, rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
