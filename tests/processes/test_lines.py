from hypothesis import given
from hypothesis import strategies as st

from elizacloud.processes.lines import CUT, LineSplitter


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_lines_do_not_depend_on_how_the_bytes_arrive(pieces: list[bytes]) -> None:
    splitter = LineSplitter(limit_bytes=1000)
    lines = [line for piece in pieces for line in splitter.feed(piece)]
    rest = splitter.flush()
    whole = b"".join(pieces)
    expected = whole.split(b"\n")
    assert [*lines, rest or b""] == [line.removesuffix(b"\r") for line in expected]


def test_a_long_line_keeps_its_beginning_and_says_so() -> None:
    splitter = LineSplitter(limit_bytes=4)
    assert splitter.feed(b"12345") == []
    assert splitter.feed(b"6\n1234\n") == [b"1234" + CUT, b"1234"]


def test_memory_is_bounded_without_a_newline() -> None:
    splitter = LineSplitter(limit_bytes=4)
    for _ in range(1000):
        splitter.feed(b"x" * 1000)
    assert splitter.flush() == b"xxxx" + CUT
    assert splitter.flush() is None
