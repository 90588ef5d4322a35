"""What children print, written on by a thread: whoever reads our standard error slowly, or not at all, holds up nobody."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Callable, Iterator

MOST_LINES = 20_000
LAST_SECONDS = 1.0


@contextlib.contextmanager
def lines_to_stderr() -> Iterator[Callable[[bytes], None]]:
    """A sink for lines while the block runs; when too many wait, new ones are dropped."""
    waiting: queue.Queue[bytes | None] = queue.Queue(MOST_LINES)
    output = sys.stderr.fileno()

    def write() -> None:
        while (line := waiting.get()) is not None:
            rest = line + b"\n"
            try:
                while rest:
                    rest = rest[os.write(output, rest) :]
            except OSError:
                return  # nobody will ever read it

    def add(line: bytes) -> None:
        with contextlib.suppress(queue.Full):
            waiting.put_nowait(line)

    thread = threading.Thread(target=write, name="lines of children", daemon=True)
    thread.start()
    try:
        yield add
    finally:
        with contextlib.suppress(queue.Full):
            waiting.put(None, timeout=LAST_SECONDS)
        thread.join(LAST_SECONDS)
