"""What an instance uses, out of what Docker's cgroups count. Pure, but for asking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from elizacloud.beside import beside
from elizacloud.errors import RuntimeUnavailable
from elizacloud.runtime.docker.engine import Engine
from elizacloud.runtime.docker.unit import Unit
from elizacloud.runtime.protocol import Usage

LOOKS = 5
USAGE_UNKNOWN = "usage_unknown"


async def usage_of(engine: Engine, unit: Unit) -> Usage:
    """Of its containers together; the agent's is the first of them."""
    return usage_in(await beside(*(_stats(engine, container.id) for container in unit.containers)))


async def _stats(engine: Engine, container_id: str) -> Mapping[str, Any]:
    async with engine.asked("see what the instance uses") as docker:
        # One look: by itself Docker takes two, a second apart.
        params = {"stream": "false", "one-shot": "true"}
        for _ in range(LOOKS):
            stats: Mapping[str, Any] = await docker._query_json(f"containers/{container_id}/stats", params=params)
            if "usage" in stats["memory_stats"]:  # else Docker could not look in time
                return stats
    raise RuntimeUnavailable("cannot see what the instance uses: Docker does not say; try again", code=USAGE_UNKNOWN)


def usage_in(stats: Sequence[Mapping[str, Any]]) -> Usage:
    networks = (stats[-1].get("networks") or {}).values()  # all share one
    return Usage(
        cpu_seconds=sum(each["cpu_stats"]["cpu_usage"]["total_usage"] for each in stats) / 1e9,
        memory_bytes=sum(_resident(each["memory_stats"]) for each in stats),
        memory_limit_bytes=stats[0]["memory_stats"].get("limit"),
        received_bytes=sum(network["rx_bytes"] for network in networks),
        sent_bytes=sum(network["tx_bytes"] for network in networks),
    )


def _resident(memory: Mapping[str, Any]) -> int:
    """Without the files that the kernel keeps as long as nobody needs the room, by their names in cgroups v1 and v2."""
    kept = memory.get("stats") or {}
    return int(memory.get("usage", 0)) - int(kept.get("total_inactive_file", kept.get("inactive_file", 0)))
