"""An agent coming up, as it happens: one line a transition with its time, and a spinner on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import typer

from elizacloud.cli.output import one_line

if TYPE_CHECKING:
    from elizacloud.client import Agent, AgentEvent


@contextmanager
def show_transitions(agent: Agent, *, silent: bool) -> Iterator[Callable[[AgentEvent], None]]:
    """Gives the function that shows an event on standard error, so that standard output holds the result alone."""
    if silent:
        yield lambda event: None
        return
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True, highlight=False)
    began = time.monotonic()
    heard: list[AgentEvent] = []

    def line(event: AgentEvent) -> str:
        heard.append(event)
        return f"{_since(heard[0].at, event.at):>7.2f} s  {event_line(event, dated=False)}"

    if not console.is_terminal:
        yield lambda event: typer.echo(line(event), err=True)
        return
    name = escape(one_line(agent.agent_name))
    with console.status(f"{name}: {agent.status}") as status:

        def show(event: AgentEvent) -> None:
            console.print(escape(line(event)))
            status.update(f"{name}: {event.state_to} ({time.monotonic() - began:.0f} s)")

        yield show


def event_line(event: AgentEvent, *, dated: bool = True) -> str:
    """One transition on one line."""
    moved = event.state_to if event.state_from in (None, event.state_to) else f"{event.state_from} -> {event.state_to}"
    took = "" if event.seconds is None else f" in {event.seconds:.2f} s"
    reason = f": {one_line(event.reason)}" if event.reason else ""
    date = f"{event.at:%Y-%m-%d %H:%M:%S}  " if dated else ""
    return f"{date}{moved:<22}  {event.step}{took}{reason}"


def _since(first: datetime, then: datetime) -> float:
    return max(0.0, (then - first).total_seconds())
