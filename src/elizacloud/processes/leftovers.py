"""What a `kill -9` left behind: processes found by a mark in their environment, and ended.

Every child carries a mark that names its ancestors: `/<run>/<child>/<grandchild>`. Whatever a child forks inherits
it, also what moved to a session of its own or outlived its parent, so one look at /proc finds a whole subtree. No
stranger can be hit: a mark is random, and is read again once a pidfd holds on to the process that gets the signal.

Not found: a process that wiped its environment, and one of another user when we are not root.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import select
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from elizacloud.errors import Misconfigured

MARK_VARIABLE = "_ELIZACLOUD_PROCESS"
ROUNDS = 10
DYING_SECONDS = 2.0
_MARK = re.compile(r"(/[0-9a-f]{16})+")


def end_leftovers(record: Path, grace_seconds: float = 5.0) -> list[int]:
    """End what the run that last wrote `record` left, then mark this process's children as its successor.

    Returns the pids that had to be killed. The caller holds a lock that makes it the only run with this record.
    Leftovers get `grace_seconds` to go by themselves, since a supervisor's death makes its children stop in good
    order. Blocks: call it before the event loop matters, or in a thread. Raises Misconfigured.
    """
    killed = []
    with contextlib.suppress(FileNotFoundError):
        mark = record.read_text(errors="replace").strip()
        if not _MARK.fullmatch(mark):
            raise Misconfigured(
                f"cannot tell what an earlier run left: {record} is damaged; stop what is left, then delete it"
            )
        killed = end_marked(mark, grace_seconds)
    mark = f"{os.environ.get(MARK_VARIABLE, '')}/{secrets.token_hex(8)}"
    temporary = record.with_name(f"{record.name}.new")
    with temporary.open("w") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(mark)
        file.flush()
        os.fsync(file.fileno())  # else a power cut may leave a record that is empty, hence damaged
    temporary.replace(record)
    os.environ[MARK_VARIABLE] = mark
    return killed


def end_marked(mark: str, grace_seconds: float = 0.0) -> list[int]:
    """Kill every process whose mark is `mark` or below it; returns their pids once they are gone. Blocks."""
    deadline = time.monotonic() + grace_seconds
    killed: list[int] = []
    for _ in range(ROUNDS):  # again, because a process may have forked while we looked
        with _opened(mark) as found:
            if not found:
                return killed
            for pid in _still_running(found, deadline - time.monotonic()):
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(found[pid], signal.SIGKILL)
                    killed.append(pid)
            stuck = _still_running(found, DYING_SECONDS)
    raise Misconfigured(f"cannot end processes {stuck}: they ignore SIGKILL or fork too fast; end them by hand")


@contextlib.contextmanager
def _opened(mark: str) -> Iterator[dict[int, int]]:
    """The marked processes as pid -> pidfd. The mark is read again once open: the number may have been recycled."""
    found: dict[int, int] = {}
    try:
        for pid in (int(name) for name in os.listdir("/proc") if name.isdigit()):
            if pid != os.getpid() and _has_mark(pid, mark):
                with contextlib.suppress(ProcessLookupError):
                    found[pid] = os.pidfd_open(pid)
        yield {pid: pidfd for pid, pidfd in found.items() if _has_mark(pid, mark)}
    finally:
        for pidfd in found.values():
            os.close(pidfd)


def _has_mark(pid: int, mark: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return False
    own = f"{MARK_VARIABLE}={mark}".encode()
    return any(entry == own or entry.startswith(own + b"/") for entry in environment.split(b"\0"))


def _still_running(found: dict[int, int], timeout_seconds: float) -> list[int]:
    """The pids that have not exited after at most `timeout_seconds`."""
    running = {pidfd: pid for pid, pidfd in found.items()}
    poll = select.poll()
    for pidfd in running:
        poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + timeout_seconds
    while running:
        exited = poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        if not exited:
            break
        for pidfd, _ in exited:
            poll.unregister(pidfd)
            del running[pidfd]
    return list(running.values())
