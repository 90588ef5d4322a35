"""Clients that call agents all the time, and say of each answer whom it came from."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import aiohttp

from tests.e2e.looking import WITHIN_SECONDS, a_moment

TINY_AGENT = Path(__file__).with_name("tiny_agent.py")
_CALL_SECONDS = 15


class Who(NamedTuple):
    """The run of an agent that gave an answer."""

    agent: str
    generation: int
    run: int


@dataclass
class Callers:
    """One client an agent, on a connection that it keeps. `url` is asked each time, since a relay that comes back has another."""

    url: Callable[[], str]
    token: str
    gap_seconds: float = 0.05
    last: dict[str, Who] = field(default_factory=dict)
    """By the agent that was asked: who answered last."""
    wrong: list[tuple[str, Who]] = field(default_factory=list)
    """Answers of another agent, or of an earlier run than one that had answered before; with the agent that was asked."""
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    """By agent: statuses, and errors by their name."""
    _heard: asyncio.Condition = field(default_factory=asyncio.Condition)

    @asynccontextmanager
    async def calling(self, agents: Iterable[str]) -> AsyncIterator[None]:
        headers = {"Authorization": f"Bearer {self.token}"}
        timeout = aiohttp.ClientTimeout(total=_CALL_SECONDS)
        async with aiohttp.ClientSession(headers=headers, timeout=timeout) as session, asyncio.TaskGroup() as tasks:
            calling = [tasks.create_task(self._call(session, agent), name=f"call {agent}") for agent in agents]
            yield
            for task in calling:
                task.cancel()

    async def heard(self, agent: str, *, after_run: int, within_seconds: float = WITHIN_SECONDS) -> Who:
        """A good answer of the agent, of a later run than that."""
        async with asyncio.timeout(within_seconds), self._heard:
            await self._heard.wait_for(lambda: self._has_answered(agent, after_run))
        return self.last[agent]

    async def heard_or_misled(self, agent: str, *, after_run: int, within_seconds: float = WITHIN_SECONDS) -> None:
        """The same, or a wrong answer to anybody: whoever is misled may stay so, and never hear of the agent again."""
        async with asyncio.timeout(within_seconds), self._heard:
            await self._heard.wait_for(lambda: bool(self.wrong) or self._has_answered(agent, after_run))

    def _has_answered(self, agent: str, after_run: int) -> bool:
        return agent in self.last and self.last[agent].run > after_run

    def forget_outcomes(self) -> None:
        self.outcomes.clear()

    async def _call(self, session: aiohttp.ClientSession, agent: str) -> None:
        while True:
            outcome = "no answer"
            try:
                async with session.get(f"{self.url()}/api/relay/{agent}/api/health") as answer:
                    outcome = str(answer.status)
                    if answer.status == 200:
                        await self._note(agent, await answer.read())
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                outcome = type(error).__name__
            self.outcomes.setdefault(agent, Counter())[outcome] += 1
            await a_moment(self.gap_seconds)

    async def _note(self, asked: str, body: bytes) -> None:
        said = json.loads(body)
        who = Who(said["agentId"], int(said["generation"]), int(said["run"]))
        async with self._heard:
            if who.agent != asked or who < self.last.get(asked, who):
                self.wrong.append((asked, who))
            else:
                self.last[asked] = who
            self._heard.notify_all()
