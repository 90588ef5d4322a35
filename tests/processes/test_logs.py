import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from elizacloud.processes import LogFile
from elizacloud.processes.logs import FOLLOWER_LINES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.log"


def write(log: LogFile, *numbers: int) -> None:
    for number in numbers:
        log.write(f"line {number}".encode())


def expected(*numbers: int) -> list[str]:
    return [f"line {number}" for number in numbers]


async def take(lines: AsyncIterator[str], count: int) -> list[str]:
    async with asyncio.timeout(20):
        return [await anext(lines) for _ in range(count)]


@contextmanager
def full_disk(room_bytes: int) -> Iterator[None]:
    """Files of this process cannot grow beyond `room_bytes`: a short write, then an error, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_lines_are_kept_over_a_restart(path: Path) -> None:
    for number in (1, 2):
        log = LogFile(path)
        write(log, number)
        log.close()
    assert path.read_bytes() == b"line 1\nline 2\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_size_is_bounded_and_the_newest_lines_stay(path: Path) -> None:
    log = LogFile(path, max_bytes=100, keep=2)
    write(log, *range(10, 1000))
    log.close()
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["agent.log", "agent.log.1", "agent.log.2"]
    assert all(file.stat().st_size <= 100 and file.stat().st_mode & 0o777 == 0o600 for file in files)
    assert log.read(20) == expected(*range(980, 1000))


def test_no_older_file_is_kept_when_none_is_wanted(path: Path) -> None:
    log = LogFile(path, max_bytes=20, keep=0)
    write(log, 1, 2, 3)
    log.close()
    assert list(path.parent.iterdir()) == [path]
    assert log.read(9) == expected(3)


def test_reading_takes_what_there_is_and_no_more(path: Path) -> None:
    log = LogFile(path)
    assert log.read(10) == []
    write(log, 1, 2, 3)
    assert [log.read(count) for count in (0, 2, 3, 99)] == [[], expected(2, 3), expected(1, 2, 3), expected(1, 2, 3)]
    log.close()


def test_a_tail_larger_than_one_block_is_whole(path: Path) -> None:
    log = LogFile(path)
    lines = [f"{number:0200d}".encode() for number in range(5000)]
    for line in lines:
        log.write(line)
    assert log.read(4000) == [line.decode() for line in lines[-4000:]]
    log.close()


def test_recent_lines_are_for_messages(path: Path) -> None:
    log = LogFile(path)
    write(log, *range(100))
    log.write(b"\xff broken")
    assert log.recent().splitlines()[-2:] == ["line 99", "\ufffd broken"]
    assert len(log.recent().splitlines()) == 20
    log.close()


def test_a_link_in_the_place_of_the_file_is_refused(path: Path, tmp_path: Path) -> None:
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        LogFile(path)
    assert not (tmp_path / "elsewhere").exists()


async def test_followers_get_the_tail_then_each_new_line(path: Path) -> None:
    log = LogFile(path)
    write(log, 1, 2, 3)
    async with aclosing(log.follow(2)) as one, aclosing(log.follow(0)) as other:
        assert await take(one, 2) == expected(2, 3)
        waiting = asyncio.create_task(take(other, 1), name="other follower")
        await asyncio.sleep(0)
        write(log, 4)
        assert await take(one, 1) == await waiting == expected(4)
    log.close()


async def test_following_survives_rotation(path: Path) -> None:
    log = LogFile(path, max_bytes=50, keep=1)
    write(log, 1, 2)
    async with aclosing(log.follow(10)) as lines:
        assert await take(lines, 1) == expected(1)
        write(log, *range(3, 100))
        assert await take(lines, 98) == expected(*range(2, 100))
    log.close()


async def test_closing_ends_a_follower_after_the_last_line(path: Path) -> None:
    log = LogFile(path)
    async with aclosing(log.follow(0)) as lines:
        rest = asyncio.create_task(take(lines, 1), name="follower")
        await asyncio.sleep(0)
        write(log, 1)
        log.close()
        log.close()
        assert await rest == expected(1)
        with pytest.raises(StopAsyncIteration):
            await anext(lines)
    write(log, 2)
    assert [line async for line in log.follow(9)] == expected(1)


async def test_a_slow_follower_is_told_what_it_missed(path: Path) -> None:
    log = LogFile(path)
    write(log, 0)
    async with aclosing(log.follow(1)) as lines:
        assert await take(lines, 1) == expected(0)
        write(log, *range(1, FOLLOWER_LINES + 4))
        assert await take(lines, 2) == ["[3 lines missed: reading is slower than writing]", "line 4"]
    log.close()


async def test_a_follower_that_leaves_is_forgotten(path: Path) -> None:
    log = LogFile(path)
    write(log, 1)
    async with aclosing(log.follow(1)) as lines:
        await take(lines, 1)
    assert log._followers == set()
    log.close()


def test_a_full_disk_loses_lines_and_says_so(path: Path) -> None:
    log = LogFile(path)
    write(log, 1)
    with capture_logs() as messages, full_disk(room_bytes=len(b"line 1\nlin")):
        write(log, 2, 3)
    write(log, 4)
    assert path.read_text().splitlines() == ["line 1", "[2 lines lost: the disk was full]", "line 4"]
    assert log.recent().splitlines() == expected(1, 2, 3, 4)
    assert [message["event"] for message in messages] == ["cannot write a log"]
    log.close()


def test_the_descriptor_is_freed(path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    log = LogFile(path, max_bytes=20)
    write(log, *range(20))
    log.close()
    assert len(os.listdir("/proc/self/fd")) == before
