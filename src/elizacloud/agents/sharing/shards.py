"""Which leases a control plane should take and give up. Pure.

An agent belongs to one of SHARDS by its id; whoever holds the shard's lease drives it. One more lease is for what only one
may do at a time: sweeps and pruning. A control plane that runs holds a lease of its own name, by which the others count it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

from elizacloud.store import Lease

SHARDS = 16
SWEEPS = "sweeps"
MEMBER = "member "
SHARED = (SWEEPS, *(f"agents {number}" for number in range(SHARDS)))
"""Sweeps first: the first ones are kept when others are given up, and a new sweeper has to see everything twice."""


@dataclass(frozen=True, slots=True)
class Plan:
    take: tuple[str, ...]
    give_up: tuple[str, ...]


def shard_of(agent_id: str) -> str:
    """The name of the lease under which this agent is driven. The same for ever."""
    return f"agents {crc32(agent_id.encode()) % SHARDS}"


def members(seen: Sequence[Lease]) -> frozenset[str]:
    """The control planes that run."""
    return frozenset(lease.holder for lease in seen if lease.name.startswith(MEMBER) and lease.holder is not None)


def plan(seen: Sequence[Lease], me: str) -> Plan:
    """Free ones up to a fair share are taken; what is over it is given up, for the others to take."""
    holder_of = {lease.name: lease.holder for lease in seen}
    fair = math.ceil(len(SHARED) / len(members(seen) | {me}))
    mine = [name for name in SHARED if holder_of.get(name) == me]
    free = [name for name in SHARED if holder_of.get(name) is None]
    return Plan(tuple(free[: max(0, fair - len(mine))]), tuple(mine[fair:]))
