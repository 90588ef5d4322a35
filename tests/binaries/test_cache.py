import asyncio
import os
from pathlib import Path

import pytest

from elizacloud.binaries.cache import Cache, CacheUnusable
from elizacloud.processes import spawn
from tests.processes.conftest import ENV, Printed, python

HOLDER = """
import fcntl, os, signal, sys
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
signal.pause()
"""


def ignore(_: float) -> None: ...


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


async def test_a_lock_waits_for_the_death_of_another_process(cache: Cache) -> None:
    async with cache.lock("x", ignore):
        pass
    printed = Printed()
    waits: list[float] = []
    async with spawn(python(HOLDER, str(cache.root / "locks" / "x")), name="holder", env=ENV, log=printed) as holder:
        await printed.line(b"held")

        def on_wait(seconds: float) -> None:
            waits.append(seconds)
            holder.kill()

        async with asyncio.timeout(20), cache.lock("x", on_wait):
            assert waits


async def test_locks_exclude_within_a_process_and_by_name_only(cache: Cache) -> None:
    async with cache.lock("x", ignore), cache.lock("y", ignore):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05), cache.lock("x", ignore):
                pass
    async with asyncio.timeout(20), cache.lock("x", ignore):
        pass


def test_an_artefact_appears_whole_and_replaces_another(cache: Cache) -> None:
    for content in ("one", "two"):
        with cache.temporary("tool-1") as directory:
            (directory / "tool").write_text(content)
            assert not cache.path("tool-1").exists() or (cache.path("tool-1") / "tool").read_text() == "one"
            assert cache.publish(directory, "tool-1") == cache.path("tool-1")
        assert (cache.path("tool-1") / "tool").read_text() == content
    assert names(cache.root) == ["tmp", "tool-1"]
    assert names(cache.root / "tmp") == []


def test_what_a_dead_run_left_is_removed(cache: Cache) -> None:
    with cache.temporary("tool-1") as directory:
        (directory / "half").write_text("")
        stale = directory.with_name("tool-1.dead")
        stale.mkdir()
        other = directory.with_name("tool-2.alive")
        other.mkdir()
        with cache.temporary("tool-1") as again:
            assert names(cache.root / "tmp") == sorted([again.name, other.name])


def test_the_directory_is_private(cache: Cache) -> None:
    cache.partial("x")
    assert cache.root.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("open_to_others", ["", "tool-1", "tool-1/tool"])
def test_a_program_that_others_could_have_put_there_is_not_found(cache: Cache, open_to_others: str) -> None:
    directory = cache.root / "tool-1"
    directory.mkdir(parents=True)
    (directory / "tool").touch(mode=0o755)
    assert cache.find("tool-1", "tool") == directory / "tool"
    assert cache.find("tool-1", "other") is None
    (cache.root / open_to_others).chmod(0o777)
    with pytest.raises(CacheUnusable, match="others could put programs into it"):
        cache.find("tool-1", "tool")


def test_a_directory_that_others_can_write_is_refused(cache: Cache) -> None:
    cache.root.mkdir()
    cache.root.chmod(0o777)
    with pytest.raises(CacheUnusable, match="others could put programs into it"):
        cache.partial("x")


def test_a_directory_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheUnusable, match="Not a directory; set ELIZACLOUD_CACHE_DIR to another one"):
        Cache(tmp_path / "file" / "cache").partial("x")


async def test_no_descriptor_is_leaked(cache: Cache) -> None:
    before = len(os.listdir("/proc/self/fd"))
    async with cache.lock("x", ignore):
        pass
    assert len(os.listdir("/proc/self/fd")) == before
