"""One child process: spawned into its own session, watched through a pidfd, ended with everything it forked.

A pidfd tells that the child has exited without reaping it. So its number, which is also its group's, stays taken
until the whole group has been sent SIGKILL: no signal can ever reach a stranger that got a recycled number.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from elizacloud.errors import Unavailable
from elizacloud.processes import die_with_parent
from elizacloud.processes.errors import SpawnFailed
from elizacloud.processes.leftovers import MARK_VARIABLE, end_marked
from elizacloud.processes.lines import LineSplitter

LineSink = Callable[[bytes], None]
"""Gets each line that a child prints, without its newline, in the event loop's thread; must not block."""

READ_BYTES = 65536
STDIN_LIMIT_BYTES = 65536  # a pipe's capacity on Linux, so that writing before anyone reads cannot block
DRAIN_READS = 4
KILL_SECONDS = 5.0


@dataclass(frozen=True)
class Exit:
    """How a child ended: `code` as in subprocess, negative for a signal."""

    code: int

    @property
    def clean(self) -> bool:
        return self.code == 0

    def __str__(self) -> str:
        if self.code >= 0:
            return f"exit status {self.code}"
        try:
            return f"killed by {signal.Signals(-self.code).name}"
        except ValueError:
            return f"killed by signal {-self.code}"


class Child:
    """A running or exited child. Made by `spawn`; whoever has it stops it, also after it exited on its own."""

    def __init__(self, popen: subprocess.Popen[bytes], *, name: str, mark: str, output: int, log: LineSink) -> None:
        self.name = name
        self.pid = popen.pid
        self.exit: Exit | None = None
        self._popen = popen
        self._mark = mark
        self._output = output
        self._log = log
        self._lines = LineSplitter()
        self._exited = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(popen.pid)
        self._loop.add_reader(self._pidfd, self._on_exit)
        self._loop.add_reader(output, self._on_output)

    def __repr__(self) -> str:
        return f"<Child {self.name} pid={self.pid} {self.exit or 'running'}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def wait(self) -> Exit:
        """Returns once the child has exited, all it printed is with the log, and its group has been sent SIGKILL."""
        await self._exited.wait()
        assert self.exit is not None
        return self.exit

    async def stop(self, grace_seconds: float = 5.0) -> Exit:
        """End the child and all it left: SIGTERM to its group, SIGKILL when `grace_seconds` have passed.

        Nothing of it runs when this returns. Cancelled, it kills at once instead of waiting. May be called twice.
        """
        try:
            if self.exit is None:
                self.signal(signal.SIGTERM)
                self.signal(signal.SIGCONT)  # a frozen process acts on SIGTERM only once it runs again
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(grace_seconds):
                        await self._exited.wait()
                self.kill()
                await self._killed()
            await asyncio.to_thread(end_marked, self._mark)
        except asyncio.CancelledError:
            self.kill()
            end_marked(self._mark)
            raise
        return await self.wait()

    async def _killed(self) -> None:
        try:
            async with asyncio.timeout(KILL_SECONDS):
                await self._exited.wait()
        except TimeoutError as error:
            raise Unavailable(f"cannot end {self!r}: SIGKILL has no effect, it hangs in the kernel") from error

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child's whole process group; nothing happens when it has exited."""
        if self.exit is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)

    def _on_output(self) -> None:
        if self._read() == b"":
            self._loop.remove_reader(self._output)

    def _read(self) -> bytes | None:
        """Hand on what is in the pipe and return it: empty at the end of file, None when there is nothing now."""
        try:
            data = os.read(self._output, READ_BYTES)
        except BlockingIOError:
            return None
        for line in self._lines.feed(data):
            self._log(line)
        return data

    def _on_exit(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._loop.remove_reader(self._output)
        self.kill()  # before the child is reaped: see the module's docstring
        try:
            # Bounded, because a grandchild in a session of its own may hold the pipe's other end and write for ever.
            for _ in range(DRAIN_READS):
                if not self._read():
                    break
            if (rest := self._lines.flush()) is not None:
                self._log(rest)
        finally:
            self.exit = Exit(self._popen.wait())
            os.close(self._output)
            os.close(self._pidfd)
            self._exited.set()


def spawn(
    argv: Sequence[str | Path],
    *,
    name: str,
    env: Mapping[str, str],
    log: LineSink,
    cwd: Path | None = None,
    pass_fds: Sequence[int] = (),
    stdin: bytes = b"",
    when_parent_dies: signal.Signals = signal.SIGKILL,
) -> Child:
    """Start `argv` in its own session; standard output and error go to `log`, line by line. Raises SpawnFailed.

    `env` is all that the child gets, besides the mark that leftovers.py finds it by. `stdin` (at most 64 KiB) is
    what it reads before an end of file: the place for a secret, as arguments are public. `when_parent_dies` is
    SIGTERM for a child with children of its own, so that it can end them. "The parent" is the thread that runs this
    event loop.
    """
    if not hasattr(os, "pidfd_open"):
        raise SpawnFailed(f"cannot start {name}: child processes need Linux 5.3 or newer; run it on such a machine")
    if len(stdin) > STDIN_LIMIT_BYTES:
        raise ValueError(f"stdin of {len(stdin)} bytes: at most {STDIN_LIMIT_BYTES} are passed on")
    found = shutil.which(argv[0], path=env.get("PATH", os.defpath))
    if found is None:
        raise SpawnFailed(
            f"cannot start {name}: {argv[0]} is not an executable file; check the path and its permissions"
        )
    mark = f"{os.environ.get(MARK_VARIABLE, '')}/{secrets.token_hex(8)}"
    tie = [sys.executable, "-I", "-S", die_with_parent.__file__, str(int(when_parent_dies)), str(os.getpid())]
    with contextlib.ExitStack() as undo:
        try:
            read_end, write_end = os.pipe()
            undo.callback(os.close, read_end)
            with _closing(write_end), _stdin_of(stdin) as standard_input:
                popen = subprocess.Popen(
                    [*tie, os.path.abspath(found), *map(str, argv)],
                    stdin=standard_input,
                    stdout=write_end,
                    stderr=write_end,
                    env={**env, MARK_VARIABLE: mark},
                    cwd=cwd,
                    pass_fds=pass_fds,
                    start_new_session=True,
                )
            undo.callback(popen.wait)
            undo.callback(popen.kill)
            os.set_blocking(read_end, False)
            child = Child(popen, name=name, mark=mark, output=read_end, log=log)
        except (OSError, ValueError) as error:  # ValueError: a NUL byte in an argument or a variable
            raise SpawnFailed(f"cannot start {name}: {error}") from error
        undo.pop_all()
    return child


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[None]:
    try:
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _stdin_of(data: bytes) -> Iterator[int]:
    """A descriptor that reads as `data`, then end of file."""
    if not data:
        yield subprocess.DEVNULL
        return
    read_end, write_end = os.pipe()
    with _closing(read_end):
        with os.fdopen(write_end, "wb") as pipe:
            pipe.write(data)
        yield read_end
