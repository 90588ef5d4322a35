"""A wave: agents enough that each step has one, every one is stopped at a seam of its step, and then it strikes them all."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from elizacloud.states import Step
from tests.chaos.audit import GONE, agreed
from tests.chaos.cloud import ChaosCloud
from tests.chaos.gate import Arm, Seam

HELD_WITHIN_SECONDS = 15
REPAIRED_WITHIN_SECONDS = 30
READY, PAUSED, STOPPED = "ready", "paused", "stopped"

BEGUN_BY_CREATING = (Step.MINT_KEY, Step.START, Step.AWAIT_JOIN, Step.AWAIT_READY)
BEGUN_BY: dict[Step, tuple[str, str, str]] = {
    Step.PAUSE: (READY, "pause", PAUSED),
    Step.RESUME: (PAUSED, "start", READY),
    Step.STOP: (READY, "stop", STOPPED),
    Step.RESTART: (STOPPED, "start", READY),
    Step.DELETE: (READY, "delete", GONE),
    Step.CONFIRM_GONE: (READY, "delete", GONE),
}
"""By step: the state of the agent that is taken, what its owner asks for, and where it ends."""

SOMETIMES = {(Step.AWAIT_READY, "before save joined"), (Step.AWAIT_READY, "after save joined")}
"""Where an agent comes by only when its first probe finds it not ready yet."""


@dataclass
class Waves:
    cloud: ChaosCloud
    wanted: dict[str, str] = field(default_factory=dict)
    """By agent: the state that it has to be in when all is repaired."""
    places: Mapping[Step, Sequence[str]] = field(default_factory=dict)
    """The seams of each step where nothing goes wrong, in the order in which an agent comes to them."""
    _names: itertools.count[int] = field(default_factory=itertools.count)

    async def begin(self) -> None:
        """One agent a time through every step, so that all seams are known, and enough of them for the first wave."""
        for _ in range(6):
            await self.create()
        await self.settled()
        stopped, paused, again, gone = list(self.wanted)[:4]
        await self.wish(stopped, "stop", STOPPED)
        await self.wish(paused, "pause", PAUSED)
        await self.wish(again, "pause", PAUSED)
        await self.wish(gone, "delete", GONE)
        await self.settled()
        await self.wish(again, "start", READY)
        await self.wish(stopped, "start", READY)
        await self.settled()
        await self.wish(stopped, "stop", STOPPED)
        await self.create()
        await self.settled()
        self.places = _places(self.cloud.gate.traces.values())

    async def settled(self) -> None:
        await agreed(self.cloud.world, self.wanted, within_seconds=REPAIRED_WITHIN_SECONDS)

    async def hold(self, seams: Mapping[Step, Seam]) -> dict[Step, Arm]:
        """An agent at each of these seams."""
        arms: dict[Step, Arm] = {}
        for step in BEGUN_BY_CREATING:
            if step in seams:
                arms[step] = self.cloud.gate.arm(seams[step])
        for step, (state, wish, to) in BEGUN_BY.items():
            if step in seams:
                agent = self.one(state, besides=arms.values())
                # Of all that are being deleted one looks for the others, too, and nobody knows which.
                arms[step] = self.cloud.gate.arm(seams[step], None if step is Step.CONFIRM_GONE else agent)
                await self.wish(agent, wish, to)
        for step in BEGUN_BY_CREATING:
            if step in seams:
                await self.create()
        try:
            async with asyncio.timeout(HELD_WITHIN_SECONDS):
                for arm in arms.values():
                    await arm.held.wait()
        except TimeoutError:
            missed = [str(arm.seam) for arm in arms.values() if not arm.held.is_set()]
            raise AssertionError(f"no agent came to {missed}") from None
        return arms

    async def thin_out(self) -> None:
        """Delete what the next wave does not need; the oldest, since whoever died often waits longer for the next start."""
        for agent in [agent for agent, state in self.wanted.items() if state == READY][:-4]:
            await self.wish(agent, "delete", GONE)

    async def create(self) -> str:
        agent = await self.cloud.create(f"agent-{next(self._names)}")
        self.wanted[agent] = READY
        return agent

    async def wish(self, agent: str, wish: str, to: str) -> None:
        await self.cloud.wish(agent, wish)
        self.wanted[agent] = to

    def one(self, state: str, *, besides: Iterable[Arm] = ()) -> str:
        """An agent that is to be in the state, and that none of these arms is for."""
        taken = {arm.agent for arm in besides}
        return next(agent for agent, now in self.wanted.items() if now == state and agent not in taken)


def _places(traces: Iterable[Sequence[Seam]]) -> dict[Step, list[str]]:
    """Without those that an agent comes to only sometimes, as when a first look finds that it has to look again."""
    passes: dict[Step, list[dict[str, None]]] = {step: [] for step in Step}
    for trace in traces:
        done = set()
        for step, seams in itertools.groupby(trace, key=lambda seam: Step(seam.step)):
            # A wave begins these by a creation, and later, as after a wake, they have other seams.
            if step not in BEGUN_BY_CREATING or step not in done:
                passes[step].append(dict.fromkeys(seam.place for seam in seams))
            done.add(step)
    return {step: [place for place in first if _always(step, place, rest)] for step, (first, *rest) in passes.items()}


def _always(step: Step, place: str, passes: Iterable[Mapping[str, None]]) -> bool:
    return (step, place) not in SOMETIMES and all(place in each for each in passes)
