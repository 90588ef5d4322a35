"""Transitions, shown."""

import io
from datetime import UTC, datetime, timedelta

import pytest
import rich.console

from elizacloud.cli.progress import show_transitions
from elizacloud.client import Agent, AgentEvent

AGENT = Agent(agent_id="b", agent_name="ada [bold]", status="requested")
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def event(second: float, before: str | None, after: str, reason: str = "") -> AgentEvent:
    at = AT + timedelta(seconds=second)
    return AgentEvent(sequence=1, agent_id="b", at=at, step="do", state_from=before, state_to=after, reason=reason)


def test_lines_go_to_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with show_transitions(AGENT, silent=False) as show:
        show(event(0, None, "requested"))
        show(event(1.5, "requested", "keyed", "[because]"))
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.splitlines() == [
        "   0.00 s  requested               do",
        "   1.50 s  requested -> keyed      do: [because]",
    ]


def test_a_terminal_gets_a_spinner_and_the_same_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    console = rich.console.Console(file=terminal, force_terminal=True, width=80, highlight=False)
    monkeypatch.setattr(rich.console, "Console", lambda **options: console)
    with show_transitions(AGENT, silent=False) as show:
        show(event(0, "joined", "ready", "[because]"))
    assert "joined -> ready" in terminal.getvalue()
    assert "[because]" in terminal.getvalue()
    assert "ada [bold]: " in terminal.getvalue()


def test_silent_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with show_transitions(AGENT, silent=True) as show:
        show(event(0, None, "ready"))
    assert capsys.readouterr() == ("", "")
