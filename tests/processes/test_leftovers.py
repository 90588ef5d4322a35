import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from elizacloud.errors import Misconfigured
from elizacloud.processes.leftovers import MARK_VARIABLE, end_leftovers, end_marked
from tests.processes.conftest import await_gone, is_running, python

# A supervisor: a run with a record, a child, and a grandchild in a session of its own that ignores SIGTERM.
SUPERVISOR = """
import asyncio, os, sys
from pathlib import Path
from elizacloud.processes import end_leftovers, spawn

CHILD = '''
import signal, subprocess, sys
deaf = "import signal; signal.signal(15, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
grandchild = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True, stdout=subprocess.PIPE)
grandchild.stdout.readline()
print(grandchild.pid, flush=True)
signal.pause()
'''

async def main():
    end_leftovers(Path(sys.argv[1]))
    log = lambda line: print(line.decode(), flush=True)
    child = spawn([sys.executable, "-c", CHILD], name="child", env={"PATH": os.environ["PATH"]}, log=log)
    print(child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def _own_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK_VARIABLE, "")


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return tmp_path / "children"


@pytest.fixture
def orphan(record: Path) -> Iterator[int]:
    """The pid of a grandchild that outlived a supervisor and a child that were killed with SIGKILL."""
    supervisor = subprocess.Popen(python(SUPERVISOR, str(record)), stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    child, grandchild = int(supervisor.stdout.readline()), int(supervisor.stdout.readline())
    supervisor.kill()
    supervisor.wait(20)
    supervisor.stdout.close()
    await_gone(child)
    assert is_running(grandchild)
    yield grandchild
    end_marked(record.read_text())


def test_the_next_run_ends_what_a_killed_one_left(record: Path, orphan: int) -> None:
    assert end_leftovers(record, grace_seconds=0.05) == [orphan]
    assert not is_running(orphan)


def test_each_run_has_its_own_mark(record: Path) -> None:
    marks = set()
    for _ in range(2):
        assert end_leftovers(record) == []
        assert record.read_text() == os.environ[MARK_VARIABLE]
        marks.add(record.read_text())
    assert len(marks) == 2
    assert record.stat().st_mode & 0o777 == 0o600


def test_a_leftover_that_goes_by_itself_is_not_killed(record: Path) -> None:
    end_leftovers(record)
    leaving = subprocess.Popen(["sleep", "0.2"])  # inherits the mark
    assert end_leftovers(record, grace_seconds=20) == []
    assert leaving.wait(20) == 0


def test_strangers_and_other_runs_are_spared(record: Path, tmp_path: Path) -> None:
    end_leftovers(tmp_path / "other")
    mark = os.environ[MARK_VARIABLE]
    strangers = [
        subprocess.Popen(["sleep", "600"], env={**os.environ, MARK_VARIABLE: value}) for value in (mark, f"{mark}0", "")
    ]
    try:
        os.environ[MARK_VARIABLE] = ""
        end_leftovers(record)
        assert end_leftovers(record) == []
        assert [stranger.poll() for stranger in strangers] == [None] * 3
        assert end_marked(mark) == [strangers[0].pid]
        assert [stranger.poll() for stranger in strangers[1:]] == [None] * 2
    finally:
        for stranger in strangers:
            stranger.kill()
            stranger.wait(20)


@pytest.mark.parametrize("content", [b"", b"/", b"/0123", b"\xff\x00", b"/" + b"0" * 17])
def test_a_damaged_record_is_refused_and_kept(record: Path, content: bytes) -> None:
    record.write_bytes(content)
    with pytest.raises(Misconfigured, match="is damaged"):
        end_leftovers(record)
    assert record.read_bytes() == content
