"""What all exchanges of a worker share."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Protocol

from elizacloud.relay.access_log import AccessLog
from elizacloud.relay.metrics import Metrics
from elizacloud.relay.turns import Turns

_CROWD = 4
"""Of requests on their way: with fewer, a write would wait for nothing."""


class Tasks(Protocol):
    def spawn(self, work: Coroutine[None, None, None], name: str) -> asyncio.Task[None]: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    tasks: Tasks
    metrics: Metrics
    access_log: AccessLog
    turns: Turns
    first_byte_timeout_seconds: float
    standstill_seconds: float

    def writes_may_wait(self) -> bool:
        """Whether small ones may leave together, a moment later (outgoing.py): none but their own owner waits for that."""
        return self.turns.alone and self.metrics.in_flight >= _CROWD
