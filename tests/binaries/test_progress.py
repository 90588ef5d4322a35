import asyncio
import io
import os
import pty

import pytest

from elizacloud.binaries.progress import Elapsed, PlainProgress, Update, show_progress


def test_plain_lines_come_only_now_and_then() -> None:
    now = 0.0
    stream = io.StringIO()
    progress = PlainProgress(stream, every_seconds=3, clock=lambda: now)
    for second in range(8):
        now = float(second)
        progress(Update("downloading x", second * 1e6, 10e6, "bytes"))
    progress(Update("downloading x", 10e6, 10e6, "bytes", state="done"))
    assert stream.getvalue().splitlines() == [
        "downloading x",
        "downloading x: 3.0 of 10.0 MB",
        "downloading x: 6.0 of 10.0 MB",
        "downloading x: done, 10.0 of 10.0 MB",
    ]


def test_two_at_once_do_not_silence_each_other() -> None:
    stream = io.StringIO()
    progress = PlainProgress(stream, clock=lambda: 0.0)
    for label in ("a", "b"):
        progress(Update(label, 0, None, "seconds"))
    progress(Update("a", 65, None, "seconds", state="failed"))
    assert stream.getvalue().splitlines() == ["a", "b", "a: failed, 65 s"]


def test_a_terminal_gets_a_bar_and_a_last_line() -> None:
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as terminal, show_progress(terminal) as progress:
        progress(Update("downloading x", 5e6, 10e6, "bytes", detail="[brackets] are text"))
        progress(Update("downloading x", 10e6, 10e6, "bytes", state="done"))
        progress(Update("building y", 1, None, "seconds"))
    try:
        shown = os.read(ours, 65536).decode()
    finally:
        os.close(ours)
    assert "downloading x: done, 10.0 of 10.0 MB" in shown


def test_without_a_terminal_lines_are_plain() -> None:
    stream = io.StringIO()
    with show_progress(stream) as progress:
        progress(Update("building y", 0, None, "seconds"))
    assert stream.getvalue() == "building y\n"


@pytest.mark.looptime
async def test_elapsed_time_is_told_once_a_second() -> None:
    updates: list[Update] = []
    with Elapsed("building y", updates.append) as elapsed:
        elapsed.detail("net/http")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(2.5):
                await asyncio.Event().wait()
    assert [(update.done, update.detail, update.state) for update in updates] == [
        (0, "", "running"),
        (1, "net/http", "running"),
        (2, "net/http", "running"),
        (2.5, "net/http", "done"),
    ]


@pytest.mark.looptime
async def test_an_error_ends_it_as_failed() -> None:
    updates: list[Update] = []
    with pytest.raises(RuntimeError), Elapsed("building y", updates.append):
        raise RuntimeError
    assert [update.state for update in updates] == ["running", "failed"]
