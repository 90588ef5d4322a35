"""One command run to its end, for its exit status and its last lines."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from elizacloud.processes import Exit, spawn

KEPT_LINES = 40


def _ignore(_: str) -> None: ...


async def run(
    argv: Sequence[str | Path],
    *,
    name: str,
    environ: Mapping[str, str],
    seconds: float,
    cwd: Path | None = None,
    on_line: Callable[[str], None] = _ignore,
) -> tuple[Exit, list[str]]:
    """Raises SpawnFailed, and TimeoutError after `seconds`; nothing of the command runs afterwards.

    Our own settings are kept from the command: they may be secrets, and it has no use for them.
    """
    lines: deque[str] = deque(maxlen=KEPT_LINES)

    def keep(line: bytes) -> None:
        lines.append(line.decode(errors="replace"))
        on_line(lines[-1])

    env = {key: value for key, value in environ.items() if not key.startswith("ELIZACLOUD_")}
    async with spawn(argv, name=name, env=env, cwd=cwd, log=keep) as child:
        try:
            async with asyncio.timeout(seconds):
                exit_ = await child.wait()
        except TimeoutError as error:
            raise TimeoutError(f"{name} took longer than {seconds:.0f} s") from error
    return exit_, list(lines)
