"""What every step works with, and what a step says when it is through. A step raises an Error when it failed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from elizacloud.agents.handover import Handover
from elizacloud.agents.idle.uses import Uses
from elizacloud.agents.journal import Journal
from elizacloud.agents.lookout import Lookout
from elizacloud.agents.metrics import Metrics
from elizacloud.agents.place import Place
from elizacloud.agents.reconcile.observe import Outside
from elizacloud.agents.reconcile.past import Memory
from elizacloud.agents.shared_look import SharedLook
from elizacloud.agents.sharing.hold import Hold, guarded
from elizacloud.errors import Error
from elizacloud.settings import Settings
from elizacloud.store import Store
from elizacloud.upstreams import Relays

BUSY_MAX_SECONDS = 3600.0
"""The longest lease by which a container may say that it works."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The step is done: look at the table of states again, at once."""


@dataclass(frozen=True, slots=True)
class Later:
    """Not yet, or nothing to do: look again after so many seconds (None: only when woken)."""

    seconds: float | None
    blind: bool = False
    """Something that the look needed did not answer, so nothing is known."""


Outcome = Moved | Later


class StepFailed(Error):
    """A step did not come to its end. `fix` says what a person can do; `attempts` counts what the step counts, if given."""

    code, status = "step_failed", 500

    def __init__(
        self,
        message: str,
        *,
        code: str,
        fix: str = "",
        attempts: int | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message, code=code, retry_after_seconds=retry_after_seconds)
        self.fix = fix
        self.attempts = attempts


@dataclass(frozen=True, slots=True)
class Waiting:
    """How long the step has been due: since the agent came into its present state, generation and run."""

    since: float
    within_seconds: float

    @property
    def seconds(self) -> float:
        return asyncio.get_running_loop().time() - self.since

    @property
    def is_over(self) -> bool:
        return self.seconds >= self.within_seconds


@dataclass(frozen=True, slots=True)
class Parts:
    store: Store
    place: Place
    relays: Relays
    settings: Settings
    now: Callable[[], datetime]
    journal: Journal
    lookout: Lookout
    outside: SharedLook[Outside]
    """One look at all that exists outside, shared by all deletions that want to see that they are through."""
    memory: Memory
    metrics: Metrics
    uses: Uses
    handover: Handover = field(default_factory=Handover)
    untidy: asyncio.Event = field(default_factory=asyncio.Event)
    """Set by whoever may have left something outside that only a sweep finds: the next one comes soon then."""
    clean_sweeps: dict[str, int] = field(default_factory=dict)
    """By agent: how many looks in a row found nothing of it."""

    def forget(self, agent_id: str) -> None:
        """It is gone: keep nothing of it in memory."""
        self.clean_sweeps.pop(agent_id, None)
        self.lookout.forget(agent_id)
        self.uses.forget(agent_id)
        self.handover.drop(agent_id)

    def under(self, hold: Hold) -> Parts:
        """The same, for work under this lease: what it writes and does outside counts only while the lease is held."""
        if hold.fence is None:
            return self
        place = self.place
        return replace(
            self,
            journal=self.journal.under(hold.fence),
            place=replace(place, headscale=guarded(place.headscale, hold), runtime=guarded(place.runtime, hold)),
        )
