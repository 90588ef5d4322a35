"""Who is measured when. In each round each contender has its turn at each number of connections, so that noise hits all alike."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from bench.relay import load
from bench.relay.figures import Figures, Part, Result
from bench.relay.load import Failed
from bench.relay.upstream import BIG_PATH

WARM_UP_SECONDS = 1


class Contender(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    @property
    def only(self) -> Collection[int] | None:
        """The numbers of connections that it is measured at; None is all."""

    async def measure(self, connections: int, seconds: int) -> Figures:
        """Raises Failed."""

    async def large_body(self) -> float:
        """Bytes a second. Raises Failed."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A relay that listens on loopback and is measured with wrk. `pids` are its processes, whose children count too."""

    name: str
    version: str
    url: str
    pids: Sequence[int]
    wrk: Sequence[str]
    headers: Sequence[str] = ()
    only: Collection[int] | None = None

    async def measure(self, connections: int, seconds: int) -> Figures:
        return await load.wrk(
            self.wrk, f"{self.url}/", self.headers, connections=connections, seconds=seconds, pids=self.pids
        )

    async def large_body(self) -> float:
        return await load.large_body(f"{self.url}{BIG_PATH}", self.headers)


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    seconds: int
    rounds: int
    connections: Sequence[int]
    wanted: Collection[str] | None = None
    """Contenders to measure; None is all."""

    def wants(self, name: str) -> bool:
        return self.wanted is None or name in self.wanted


@dataclass
class Meter:
    """Takes the measurements of a part and tells how far it is."""

    plan: Plan
    console: Console
    wrk: Sequence[str]

    async def run(self, part: Part, contenders: Sequence[Contender]) -> None:
        """Fill the part with a result for each contender; one that fails is kept, with what it said."""
        results = {each.name: Result(each.name, each.version) for each in contenders}
        part.results += results.values()
        turns = list(self._turns(contenders))
        for contender in contenders:
            with suppress(Failed):  # it fails again when it is measured
                await contender.measure(self.plan.connections[-1], WARM_UP_SECONDS)
        with self._progress(part.name, len(turns)) as advance:
            for contender, connections in turns:
                result = results[contender.name]
                advance(f"{contender.name} at {connections}" if connections else f"{contender.name}, large body")
                try:
                    if connections == 0:
                        result.body_bytes_per_second.append(await contender.large_body())
                    else:
                        figures = await contender.measure(connections, self.plan.seconds)
                        result.rounds.setdefault(connections, []).append(figures)
                except Failed as error:
                    result.failures.append(f"at {connections or 'the large body'}: {error}")

    def _turns(self, contenders: Sequence[Contender]) -> Iterator[tuple[Contender, int]]:
        """Each measurement; 0 connections is the large body. Who begins changes from round to round."""
        for number in range(self.plan.rounds if contenders else 0):
            order = [*contenders[number % len(contenders) :], *contenders[: number % len(contenders)]]
            for connections in self.plan.connections:
                yield from ((each, connections) for each in order if each.only is None or connections in each.only)
            yield from ((each, 0) for each in order if each.only is None)

    @contextmanager
    def _progress(self, name: str, total: int) -> Iterator[Callable[[str], None]]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(name, total=total, start=True)
            done = -1

            def advance(what: str) -> None:
                nonlocal done
                done += 1
                progress.update(task, completed=done, description=f"{name}: {what}")
                if not self.console.is_terminal and done % max(1, total // 8) == 0:
                    self.console.print(f"{name}: {done} of {total} measured")

            yield advance
