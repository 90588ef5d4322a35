"""A check, and running all of them beside each other: one that hangs or breaks costs its own finding, no other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from elizacloud.errors import Error
from elizacloud.headscale.preflight import Finding, Verdict

CHECK_SECONDS = 20.0


@dataclass(frozen=True)
class Check:
    """`run` changes nothing and raises only errors of ours."""

    name: str
    run: Callable[[], Awaitable[Sequence[Finding]]]
    within_seconds: float = CHECK_SECONDS


async def run_checks(checks: Iterable[Check]) -> list[Finding]:
    """The findings in the order of the checks."""
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(_bounded(check), name=f"check {check.name}") for check in checks]
    return [finding for task in running for finding in task.result()]


async def _bounded(check: Check) -> Sequence[Finding]:
    try:
        async with asyncio.timeout(check.within_seconds):
            return await check.run()
    except TimeoutError:
        cause = f"no answer within {check.within_seconds:g} s"
        return [Finding(check.name, Verdict.FAIL, cause, "see the logs of what it looked at")]
    except Error as error:
        return [Finding(check.name, Verdict.FAIL, str(error), "do what it says, then run doctor again")]
    except OSError as error:
        cause = f"it could not be looked at: {error.strerror or error}"
        return [Finding(check.name, Verdict.FAIL, cause, "correct that, then run doctor again")]


def ok(check: str, cause: str) -> Finding:
    return Finding(check, Verdict.OK, cause)


def warn(check: str, cause: str, fix: str) -> Finding:
    return Finding(check, Verdict.WARN, cause, fix)


def fail(check: str, cause: str, fix: str) -> Finding:
    return Finding(check, Verdict.FAIL, cause, fix)
