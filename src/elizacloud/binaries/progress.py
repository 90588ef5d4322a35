"""What is told while a download or a build takes long, and two ways to show it: a bar, or a plain line now and then."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Self, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars

PLAIN_EVERY_SECONDS = 3.0
TICK_SECONDS = 1.0
DETAIL_WIDTH = 60


@dataclass(frozen=True)
class Update:
    """`done` of `total` (None: unknown) bytes, or seconds passed; the last one of a label is not "running"."""

    label: str
    done: float
    total: float | None
    unit: Literal["bytes", "seconds"]
    detail: str = ""
    state: Literal["running", "done", "failed"] = "running"

    def amount(self) -> str:
        if self.unit == "seconds":
            return f"{self.done:.0f} s"
        done = f"{self.done / 1e6:.1f}"
        return f"{done} of {self.total / 1e6:.1f} MB" if self.total else f"{done} MB"


Progress = Callable[[Update], None]


def silent(_: Update) -> None:
    """For callers that show nothing."""


@contextmanager
def show_progress(stream: TextIO | None = None) -> Iterator[Progress]:
    """Bars when `stream` (standard error unless given) is a terminal, plain lines otherwise."""
    stream = stream or sys.stderr
    if not stream.isatty():
        yield PlainProgress(stream)
        return
    console = Console(file=stream)
    with Bars(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.fields[amount]}"),
        TextColumn("[dim]{task.fields[detail]}"),
        console=console,
        transient=True,
    ) as bars:
        yield _BarProgress(bars)


class PlainProgress:
    """A line when something begins, at most one every `every_seconds` while it goes on, and one when it ends."""

    def __init__(
        self,
        stream: TextIO,
        *,
        every_seconds: float = PLAIN_EVERY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._every_seconds = every_seconds
        self._clock = clock
        self._written: dict[str, float] = {}

    def __call__(self, update: Update) -> None:
        now = self._clock()
        last = self._written.get(update.label)
        if update.state != "running":
            self._written.pop(update.label, None)
            self._write(f"{update.label}: {update.state}, {update.amount()}")
        elif last is None or now - last >= self._every_seconds:
            self._written[update.label] = now
            self._write(f"{update.label}: {update.amount()}" if last is not None else update.label)

    def _write(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class _BarProgress:
    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, update: Update) -> None:
        task = self._tasks.get(update.label)
        if task is None:
            task = self._bars.add_task(update.label, total=update.total, amount="", detail="")
            self._tasks[update.label] = task
        detail = update.detail[:DETAIL_WIDTH].replace("[", r"\[")
        self._bars.update(task, completed=update.done, total=update.total, amount=update.amount(), detail=detail)
        if update.state != "running":
            self._bars.remove_task(self._tasks.pop(update.label))
            text = f"{update.label}: {update.state}, {update.amount()}"
            self._bars.console.print(text, markup=False, highlight=False)


class Elapsed:
    """Tells the seconds that something of unknown length has taken, once a second, until it ends or fails."""

    def __init__(self, label: str, progress: Progress) -> None:
        self._label = label
        self._progress = progress
        self._detail = ""

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._tick()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._timer.cancel()
        self._tell("failed" if kind else "done")

    def detail(self, text: str) -> None:
        """What it is doing now; shown with the next tick."""
        self._detail = text

    def _tick(self) -> None:
        self._tell("running")
        self._timer = self._loop.call_later(TICK_SECONDS, self._tick)

    def _tell(self, state: Literal["running", "done", "failed"]) -> None:
        seconds = self._loop.time() - self._began
        self._progress(Update(self._label, seconds, None, "seconds", self._detail, state))
