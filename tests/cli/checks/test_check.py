"""Checks beside each other: none costs another."""

import asyncio
from collections.abc import Sequence

from elizacloud.cli.checks.check import Check, ok, run_checks
from elizacloud.errors import HeadscaleUnavailable
from elizacloud.headscale.preflight import Finding, Verdict


async def test_findings_come_in_order_whatever_some_checks_do() -> None:
    async def hangs() -> Sequence[Finding]:
        await asyncio.Event().wait()
        return []

    async def is_refused() -> Sequence[Finding]:
        raise HeadscaleUnavailable("cannot reach Headscale: connection refused")

    async def cannot_look() -> Sequence[Finding]:
        raise PermissionError(13, "Permission denied")

    async def is_well() -> Sequence[Finding]:
        return [ok("one", "fine"), ok("two", "fine")]

    findings = await run_checks(
        [
            Check("hangs", hangs, within_seconds=0.01),
            Check("refused", is_refused),
            Check("cannot look", cannot_look),
            Check("well", is_well),
        ]
    )
    assert [(finding.check, finding.verdict) for finding in findings] == [
        ("hangs", Verdict.FAIL),
        ("refused", Verdict.FAIL),
        ("cannot look", Verdict.FAIL),
        ("one", Verdict.OK),
        ("two", Verdict.OK),
    ]
    assert "connection refused" in findings[1].cause
    assert "Permission denied" in findings[2].cause
    assert all(finding.fix for finding in findings[:3])
