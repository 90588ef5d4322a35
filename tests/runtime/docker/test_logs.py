"""Lines out of pieces of any size."""

from __future__ import annotations

from elizacloud.runtime.docker.logs import LINE_MAX, lines_of


def test_pieces_become_lines() -> None:
    assert lines_of(["a\nb", "c\r\n", "", "\n", "d"]) == ["a", "bc", "", "d"]
    assert lines_of([]) == []
    assert lines_of(["\n"]) == [""]


def test_a_line_without_an_end_is_cut() -> None:
    lines = lines_of(["x" * (2 * LINE_MAX + 1), "y\n"])

    assert [len(line) for line in lines] == [LINE_MAX, LINE_MAX, 2]
