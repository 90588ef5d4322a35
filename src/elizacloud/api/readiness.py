"""Whether what the control plane needs works: each check by name, run when somebody asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from elizacloud.agents.shared_look import SharedLook
from elizacloud.errors import Error

CHECK_SECONDS = 3.0
FRESH_SECONDS = 1.0


class Readiness:
    """Runs all checks at once, and at most once a second, however many ask: nobody needs a token to ask."""

    def __init__(self, checks: Mapping[str, Callable[[], Awaitable[object]]]) -> None:
        self._checks = checks
        self._look = SharedLook(self._run, gap_seconds=0)

    async def get(self) -> dict[str, str]:
        """By name: "ok", or a sentence."""
        return await self._look.get(since=asyncio.get_running_loop().time() - FRESH_SECONDS)

    async def _run(self) -> dict[str, str]:
        async with asyncio.TaskGroup() as tasks:
            running = {
                name: tasks.create_task(_checked(check), name=f"check {name}") for name, check in self._checks.items()
            }
        return {name: task.result() for name, task in running.items()}


async def _checked(check: Callable[[], Awaitable[object]]) -> str:
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check()
    except TimeoutError:
        return f"it did not answer within {CHECK_SECONDS:.0f} seconds"
    except Error as error:
        return str(error)
    return "ok"
