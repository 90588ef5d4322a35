"""The test's end of the seams: which agent stops where, until when. Whatever is not armed passes at once, and is counted."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self


class Seam(NamedTuple):
    """A place in a step: "mint key and create instance", "after create_preauth_key"."""

    step: str
    place: str

    def __str__(self) -> str:
        return f"{self.step}: {self.place}"


@dataclass
class Arm:
    """Stops the first one that comes to the seam: this agent, or with None any that no other arm stopped or names."""

    seam: Seam
    agent: str | None = None
    held: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)


class Gate:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.passed: Counter[Seam] = Counter()
        self.traces: dict[str, list[Seam]] = {}
        """By agent: the seams that it came through, in order."""
        self._arms: list[Arm] = []
        self._server: asyncio.Server
        self._writer: asyncio.StreamWriter | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        if self._writer is not None:
            self._writer.close()
        for task in self._tasks:
            task.cancel()

    def arm(self, seam: Seam, agent: str | None = None) -> Arm:
        arm = Arm(seam, agent)
        self._arms.append(arm)
        return arm

    def open(self) -> None:
        """Let all go that are held, and disarm the rest."""
        for arm in self._arms:
            arm.go.set()
        self._arms.clear()

    def pause(self, agent: str) -> None:
        """Ask for what no public call asks for."""
        self._send({"pause": agent})

    def rekey(self, agent: str, token: str) -> None:
        """Ask for a new key as its container does."""
        self._send({"rekey": agent, "token": token})

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        try:
            async for line in reader:
                question = json.loads(line)
                agent, seam = question["agent"], Seam(question["step"], question["seam"])
                self.passed[seam] += 1
                self.traces.setdefault(agent, []).append(seam)
                arm = self._arm_for(agent, seam)
                if arm is None:
                    self._send({"go": question["number"]})
                    continue
                arm.agent = agent
                arm.held.set()
                task = asyncio.create_task(self._hold(arm, question["number"]), name=f"hold {agent} at {seam}")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except ConnectionError:
            pass
        finally:
            writer.close()
            if self._writer is writer:
                self._writer = None

    async def _hold(self, arm: Arm, number: int) -> None:
        await arm.go.wait()
        self._send({"go": number})

    def _arm_for(self, agent: str, seam: Seam) -> Arm | None:
        waiting = [arm for arm in self._arms if not arm.held.is_set() and arm.seam == seam]
        named = {arm.agent for arm in self._arms}
        for arm in waiting:
            if arm.agent == agent or (arm.agent is None and agent not in named):
                return arm
        return None

    def _send(self, order: dict[str, Any]) -> None:
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(order).encode() + b"\n")
