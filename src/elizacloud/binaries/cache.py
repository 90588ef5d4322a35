"""The directory that runs share. An artefact is a directory that appears whole, by rename, or not at all.

<name>/          a finished artefact
locks/<name>     held by the run that is making it
partial/         downloads to resume; never used as they are
tmp/             artefacts in the making; those of runs that died are removed by the next one
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

from elizacloud.errors import Misconfigured

LOCK_LOOK_SECONDS = 0.2
LOCK_SECONDS = 1800.0


class CacheUnusable(Misconfigured):
    """The cache directory cannot be written, or others could put programs into it."""

    code = "cache_unusable"


class Cache:
    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, name: str) -> Path:
        return self.root / name

    @contextlib.asynccontextmanager
    async def lock(self, name: str, on_wait: Callable[[float], None]) -> AsyncIterator[None]:
        """Only one holder in all processes; the kernel frees it when the holder dies. Raises CacheUnusable.

        `on_wait` hears how many seconds another holder has been awaited.
        """
        path = self._directory("locks") / name
        with self._explained():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        clock = asyncio.get_running_loop().time
        began = clock()
        try:
            while not _try_lock(descriptor):
                # Nothing can be awaited here: a lock of another process has no event, and a thread that blocks in
                # flock(2) could not be cancelled.
                waited = clock() - began
                if waited > LOCK_SECONDS:
                    raise CacheUnusable(f"cannot get the lock {path}: another process has it; end that process")
                on_wait(waited)
                await asyncio.sleep(LOCK_LOOK_SECONDS)
            yield
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def temporary(self, name: str) -> Iterator[Path]:
        """An empty directory, removed afterwards unless published. The caller holds the lock of `name`."""
        parent = self._directory("tmp")
        for stale in parent.glob(f"{name}.*"):
            shutil.rmtree(stale, ignore_errors=True)
        with self._explained():
            directory = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=parent))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def find(self, name: str, kind: str) -> Path | None:
        """The program of that artefact, if it is there. Raises CacheUnusable when others could have put it there."""
        program = self.path(name) / kind
        if not program.is_file():
            return None
        self._check(self.root, program.parent, program)
        return program

    def partial(self, name: str) -> Path:
        return self._directory("partial") / name

    def publish(self, directory: Path, name: str) -> Path:
        """Make a temporary directory the artefact `name`. The caller holds its lock. Returns its path."""
        final = self.path(name)
        with self._explained():
            for file in directory.iterdir():
                if file.is_file():
                    _sync(file)
            if final.exists():
                final.rename(directory.with_name(f"{name}.replaced"))
            directory.rename(final)
        shutil.rmtree(directory.with_name(f"{name}.replaced"), ignore_errors=True)
        return final

    def _directory(self, name: str) -> Path:
        directory = self.root / name
        with self._explained():
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            directory.mkdir(mode=0o700, exist_ok=True)
        self._check(self.root)
        return directory

    def _check(self, *paths: Path) -> None:
        with self._explained():
            open_to_others = any(others_may_change(path) for path in paths)
        if open_to_others:
            raise CacheUnusable(
                f"cannot use the cache directory {self.root}: others could put programs into it; "
                "make it yours (chown) and writable by you only (chmod 700)"
            )

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CacheUnusable(
                f"cannot use the cache directory {self.root}: {error.strerror}; set ELIZACLOUD_CACHE_DIR to another one"
            ) from error


def others_may_change(path: Path) -> bool:
    """Whether somebody but us and root may write to what lies there. Raises OSError."""
    status = path.stat()
    return status.st_uid not in (0, os.geteuid()) or bool(status.st_mode & stat.S_IWOTH)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sync(file: Path) -> None:
    """On disk before the rename: a power cut must not leave a short file under a final name."""
    descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
