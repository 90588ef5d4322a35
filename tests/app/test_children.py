"""What `up` says when one of its children does not come up."""

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from elizacloud.app.children import Children, ChildSpec, ready_or_exit
from elizacloud.errors import Misconfigured, Unavailable
from elizacloud.settings import child_environment


def python(name: str, code: str) -> ChildSpec:
    return ChildSpec(name, [sys.executable, "-c", code], child_environment())


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_child_that_another_needs_and_that_exits_is_named_with_its_last_words(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as group:
        children = Children(group, tmp_path)
        needed = children.keep(python("process host", "raise SystemExit('cannot go on: the mark is damaged')"))
        waiting = children.keep(python("control plane", "import signal; signal.pause()"))
        with pytest.raises(Misconfigured, match=r"cannot start process host: it exited; .*the mark is damaged"):
            await ready_or_exit((needed, waiting), forever(), within_seconds=30)
        await children.stop()


async def test_the_one_that_is_not_ready_in_time_is_named(tmp_path: Path) -> None:
    async with asyncio.TaskGroup() as group:
        children = Children(group, tmp_path)
        kept = [
            children.keep(python(name, "import signal; signal.pause()")) for name in ("process host", "control plane")
        ]
        with pytest.raises(Unavailable, match=r"cannot start control plane: it was not ready within 0\.1 s"):
            await ready_or_exit(kept, forever(), within_seconds=0.1)
        await children.stop()


async def test_a_child_that_cannot_be_supervised_ends_the_group(tmp_path: Path) -> None:
    @contextmanager
    def impossible() -> Iterator[None]:
        raise Misconfigured("cannot be started here")
        yield

    with pytest.raises(ExceptionGroup) as failed:
        async with asyncio.TaskGroup() as group:
            children = Children(group, tmp_path)
            well = children.keep(python("well", "import signal; signal.pause()"))
            await well.started()
            children.keep(replace(python("ill", ""), starting=impossible))
            await forever()
    assert failed.group_contains(Misconfigured, match="cannot be started here")
    assert well.child is not None
    assert well.child.exit is None
    with pytest.raises(ExceptionGroup) as told:
        await children.stop()
    assert told.group_contains(Misconfigured, match="cannot be started here")
    assert well.child.exit is not None
