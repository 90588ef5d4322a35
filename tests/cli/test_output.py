"""What a person at a terminal sees, and what a program reads."""

from datetime import UTC, datetime, timedelta

import pytest

from elizacloud.cli import output


def test_a_terminal_gets_a_table_with_a_head(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda: True)
    output.print_table(["agent", "name"], [["b1", "[red]ada[/red]"]], empty="none")
    shown = capsys.readouterr().out
    assert "agent" in shown
    assert "[red]ada[/red]" in shown  # a name is text, not markup
    output.print_table(["agent"], [], empty="none yet")
    assert capsys.readouterr().out == "none yet\n"


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert output.one_line("a\x1b]0;title\x07\nb\u202e") == "a ]0;title  b "


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s ago"), (90, "1 min ago"), (7300, "2 h ago"), (200_000, "2 d ago"), (-5, "0 s ago")]
)
def test_ago(seconds: float, text: str) -> None:
    assert output.ago(datetime.now(UTC) - timedelta(seconds=seconds)) == text
    assert output.ago(None) == ""
