"""A child that does not answer is killed after some looks, a healthy one never, nor the next one for the last one's sake."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from elizacloud.app.children import Children, ChildSpec, Kept
from elizacloud.app.stuck import restart_when_stuck
from elizacloud.errors import HeadscaleUnavailable

LOOK_SECONDS = 0.001


async def watched(tmp_path: Path, answers: Callable[[int], bool], looks: int) -> list[int | None]:
    """Look that often at a child that waits for ever; the pids that it had."""
    pids: list[int | None] = []
    done = asyncio.Event()

    async def healthy() -> None:
        await kept.started()
        pids.append(kept.child.pid if kept.child else None)
        if len(pids) >= looks:
            done.set()
        if not answers(len(pids)):
            raise HeadscaleUnavailable("it does not answer")

    async with asyncio.TaskGroup() as group:
        children = Children(group, tmp_path)
        argv = [sys.executable, "-c", "import signal; signal.pause()"]
        kept: Kept = children.keep(ChildSpec("quiet", argv, {"PATH": "/usr/bin"}))
        await kept.started()
        watching = group.create_task(restart_when_stuck(kept, healthy, every_seconds=LOOK_SECONDS), name="watch")
        await done.wait()
        watching.cancel()
        await children.stop()
    return pids


async def test_a_child_that_never_answers_is_started_again(tmp_path: Path) -> None:
    pids = await watched(tmp_path, lambda look: look > 3, 20)
    assert pids[0] == pids[2]
    assert pids[-1] != pids[0]


async def test_one_that_is_silent_now_and_then_is_left_alone(tmp_path: Path) -> None:
    pids = await watched(tmp_path, lambda look: look % 3 == 0, 30)
    assert set(pids) == {pids[0]}
