import os
from pathlib import Path

import pytest

from elizacloud.binaries.command import KEPT_LINES, run
from elizacloud.processes import Exit, SpawnFailed

ENVIRON = {"PATH": os.environ["PATH"]}


async def test_status_and_last_lines_come_back() -> None:
    heard: list[str] = []
    script = "for i in $(seq 100); do echo $i; done; exit 3"
    exit_, lines = await run(["sh", "-c", script], name="test", environ=ENVIRON, seconds=20, on_line=heard.append)
    assert exit_ == Exit(3)
    assert lines == [str(number) for number in range(101 - KEPT_LINES, 101)]
    assert len(heard) == 100


async def test_our_settings_are_not_handed_on(tmp_path: Path) -> None:
    environ = {**ENVIRON, "ELIZACLOUD_OPERATOR_TOKEN": "secret", "GOPROXY": "off"}
    _, lines = await run(["sh", "-c", "env; pwd"], name="test", environ=environ, seconds=20, cwd=tmp_path)
    assert "GOPROXY=off" in lines
    assert str(tmp_path) in lines
    assert "secret" not in " ".join(lines)


async def test_time_is_bounded() -> None:
    with pytest.raises(TimeoutError, match="test took longer than"):
        await run(["sh", "-c", "exec tail -f /dev/null"], name="test", environ=ENVIRON, seconds=0.05)


async def test_what_is_not_there_cannot_run() -> None:
    with pytest.raises(SpawnFailed):
        await run(["/nowhere"], name="test", environ=ENVIRON, seconds=1)
