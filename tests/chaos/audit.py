"""Do store, runtime and Headscale agree, and is it what the owner wants? Asked of SQLite, /proc, the volumes' files and
Headscale's API as they are: no code of the control plane takes part."""

from __future__ import annotations

import asyncio
import json
import re
import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from tests.e2e.looking import a_moment

GONE = "gone"
_VOLUME = re.compile(r"/agents/([a-z0-9]{16})/(\d+)/")
_OF_AGENT = "tag:a-"


@dataclass(frozen=True)
class Process:
    pid: int
    agent: str
    generation: int
    what: str
    """agent or tailscaled"""
    stopped: bool


@dataclass
class World:
    """Where the truths are."""

    data: Path
    headscale_url: str
    relay_url: str
    token: str

    @property
    def api_key(self) -> str:
        return (self.data / "control-server" / "api.key").read_text().strip()


@dataclass
class Truths:
    agents: dict[str, dict[str, Any]] = field(default_factory=dict)
    """From the store: the agent with its present generation and run."""
    processes: list[Process] = field(default_factory=list)
    volumes: dict[str, dict[str, Any]] = field(default_factory=dict)
    """`agent/generation` and what its instance.json says."""
    nodes: list[dict[str, Any]] = field(default_factory=list)
    keys: list[dict[str, Any]] = field(default_factory=list)
    answers: dict[str, int] = field(default_factory=dict)
    """By agent: what the relay answered for it."""


async def agreed(world: World, wanted: Mapping[str, str], *, within_seconds: float) -> None:
    """Return once the truths agree with each other and with what is wanted; fail with what differs when it is late."""
    differences = ["it was not looked"]
    try:
        async with asyncio.timeout(within_seconds):
            while differences:
                try:
                    differences = list(compare(await look(world, wanted), wanted))
                except (aiohttp.ClientError, sqlite3.Error, OSError, TimeoutError) as error:
                    differences = [f"cannot look: {error!r}"]
                await a_moment(0.1)
    except TimeoutError:
        raise AssertionError(f"not agreed within {within_seconds:g} s:\n  " + "\n  ".join(differences)) from None


async def look(world: World, wanted: Mapping[str, str]) -> Truths:
    truths = Truths(agents_in(world.data / "store.db"), processes_below(world.data), volumes_in(world.data / "agents"))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=8)) as session:
        key = {"Authorization": f"Bearer {world.api_key}"}
        async with session.get(f"{world.headscale_url}/api/v1/node", headers=key) as answer:
            answer.raise_for_status()
            truths.nodes = (await answer.json(content_type=None)).get("nodes") or []
        async with session.get(f"{world.headscale_url}/api/v1/preauthkey", headers=key) as answer:
            answer.raise_for_status()
            truths.keys = (await answer.json(content_type=None)).get("preAuthKeys") or []
        bearer = {"Authorization": f"Bearer {world.token}"}
        for agent, row in truths.agents.items():
            if row["state"] == wanted.get(agent) == "ready":
                url = f"{world.relay_url}/api/relay/{agent}/api/health"
                async with session.get(url, headers=bearer) as answer:
                    truths.answers[agent] = answer.status
    return truths


def compare(truths: Truths, wanted: Mapping[str, str]) -> list[str]:
    """Every difference, as a sentence."""
    found = [f"{agent}: not in the store" for agent in wanted if agent not in truths.agents]
    for agent, row in truths.agents.items():
        found += [f"{agent} ({row['state']}): {what}" for what in _of_agent(agent, row, truths, wanted.get(agent))]
    known = {agent for agent, row in truths.agents.items() if row["state"] != GONE}
    found += [
        f"process {each.pid} ({each.what}) of {each.agent}" for each in truths.processes if each.agent not in known
    ]
    found += [f"volume {name} of no agent" for name in truths.volumes if name.partition("/")[0] not in known]
    for what, things in (("node", truths.nodes), ("key", truths.keys)):
        for thing in things:
            theirs = agent_of(thing)
            if theirs is not None and theirs not in known:
                found.append(f"{what} {thing['id']} of {theirs}, of which nothing is to be left")
    return found


def _of_agent(agent: str, row: Mapping[str, Any], truths: Truths, wanted: str | None) -> list[str]:
    if wanted is None:
        return ["nobody asked for it"]
    if row["state"] != wanted:
        return [f"wanted {wanted}: {row['failure']}"]
    if wanted == GONE:
        return []
    found = [f"it says {row['failure']}"] if row["failure"] not in (None, "null") else []
    found += _of_processes(agent, row, [each for each in truths.processes if each.agent == agent])
    volumes = {name: run for name, run in truths.volumes.items() if name.startswith(f"{agent}/")}
    own = f"{agent}/{row['generation']}"
    if set(volumes) != {own}:
        found.append(f"its volumes are {sorted(volumes)}")
    elif wanted != "stopped" and volumes[own]["run"] != row["run"]:
        found.append(f"its instance is of run {volumes[own]['run']}, its record of {row['run']}")
    found += _of_headscale(
        row, *([t for t in things if agent_of(t) == agent] for things in (truths.nodes, truths.keys))
    )
    if wanted == "ready" and truths.answers[agent] != 200:
        found.append(f"the relay answers {truths.answers[agent]}")
    return found


def _of_processes(agent: str, row: Mapping[str, Any], processes: list[Process]) -> list[str]:
    kinds = sorted(process.what for process in processes)
    wanted_kinds = [] if row["state"] == "stopped" else ["agent", "tailscaled"]
    if kinds != wanted_kinds:
        return [f"its processes are {kinds}"]
    found = [
        f"{each.what} is of generation {each.generation}" for each in processes if each.generation != row["generation"]
    ]
    frozen = [each.what for each in processes if each.stopped]
    if (frozen and row["state"] != "paused") or (row["state"] == "paused" and len(frozen) != 2):
        found.append(f"frozen are {frozen}")
    return found


def _of_headscale(row: Mapping[str, Any], nodes: list[dict[str, Any]], keys: list[dict[str, Any]]) -> list[str]:
    found = []
    if [node["id"] for node in nodes] != ([row["node_id"]] if row["node_id"] else []):
        found.append(f"its nodes are {[node['id'] for node in nodes]}, recorded is {row['node_id']}")
    elif nodes and row["ipv4"] not in nodes[0]["ipAddresses"]:
        found.append(f"its addresses are {nodes[0]['ipAddresses']}, recorded is {row['ipv4']}")
    elif row["state"] == "ready" and not nodes[0]["online"]:
        found.append("its node is offline")
    if [key["id"] for key in keys] != ([row["preauth_key_id"]] if row["preauth_key_id"] else []):
        found.append(f"its keys are {[key['id'] for key in keys]}, recorded is {row['preauth_key_id']}")
    alive = [key["id"] for key in keys if datetime.fromisoformat(key["expiration"]) > datetime.now(UTC)]
    if alive:
        found.append(f"its keys {alive} are alive")
    return found


def agents_in(database: Path) -> dict[str, dict[str, Any]]:
    query = """
        SELECT a.id, a.state, a.wanted, a.generation, a.run, a.failure, g.node_id, g.ipv4, g.preauth_key_id
        FROM agents a JOIN generations g ON g.agent_id = a.id AND g.number = a.generation
    """
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=1)) as connection:
        connection.row_factory = sqlite3.Row
        return {row["id"]: dict(row) for row in connection.execute(query)}


def moves_in(database: Path) -> set[tuple[str, str]]:
    """Every move from one state to another that was ever made."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=1)) as connection:
        return set(connection.execute("SELECT DISTINCT state_from, state_to FROM events WHERE state_from != state_to"))


def processes_below(data: Path) -> list[Process]:
    """Agents and their tailscaleds, by the volume that their command line or environment names."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (entry / "environ").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        about = command if "--statedir=" in command else environment
        match = _VOLUME.search(about)
        if match is None or str(data) not in about or state == "Z":
            continue
        what = "tailscaled" if about is command else "agent"
        found.append(Process(int(entry.name), match[1], int(match[2]), what, state in "Tt"))
    return found


def volumes_in(directory: Path) -> dict[str, dict[str, Any]]:
    found: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for path in directory.glob("*/*"):
        name = f"{path.parent.name}/{path.name}"
        record = path / "instance.json"
        found[name] = json.loads(record.read_text())["spec"]["labels"] if record.exists() else {"run": None}
    return dict(found)


def agent_of(thing: Mapping[str, Any]) -> str | None:
    tags = [*thing.get("tags", []), *thing.get("forcedTags", []), *thing.get("aclTags", [])]
    return next((tag.removeprefix(_OF_AGENT) for tag in tags if tag.startswith(_OF_AGENT)), None)
