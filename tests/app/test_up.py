"""How `up` ends when something in it fails."""

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from elizacloud.app import up
from elizacloud.app.announce import Running
from elizacloud.app.children import Children, ChildSpec, Kept
from elizacloud.app.data_dir import open_data_dir
from elizacloud.app.running import Signals
from elizacloud.errors import Unavailable
from elizacloud.settings import Settings, child_environment

NEEDS_A_MOMENT = """
import signal, subprocess, sys
def end(*_):
    subprocess.run([sys.executable, "-c", ""])
    with open(sys.argv[1], "a") as ends:
        print(sys.argv[2], file=ends)
    sys.exit()
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True:
    signal.pause()
"""


async def until_ready(kept: Kept) -> None:
    async with aclosing(kept.log.follow(10)) as lines:
        async for line in lines:
            if line == "ready":
                return


async def test_an_error_stops_the_children_one_after_the_other_and_kills_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = tmp_path / "ends"

    class Cloud(up._Cloud):
        async def start(self, group: asyncio.TaskGroup) -> Running:
            self._children = Children(group, tmp_path)
            for name in ("server", "agents", "relay"):
                argv: list[str | Path] = [sys.executable, "-c", NEEDS_A_MOMENT, ends, name]
                kept = self._children.keep(ChildSpec(name, argv, child_environment(), grace_seconds=20))
                await until_ready(kept)
            group.create_task(self.fail(), name="fails")
            await asyncio.Event().wait()
            raise AssertionError

        async def fail(self) -> None:
            raise Unavailable("cannot go on")

    monkeypatch.setattr(up, "_Cloud", Cloud)
    settings = Settings(data_dir=tmp_path / "data")
    with pytest.raises(ExceptionGroup) as failed:
        await up._run(settings, open_data_dir(settings), None, None, Signals())
    assert failed.group_contains(Unavailable, match="cannot go on")
    assert ends.read_text().split() == ["relay", "agents", "server"]
