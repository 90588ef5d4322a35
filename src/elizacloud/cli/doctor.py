"""`elizacloud doctor`: what can be wrong before and after `up`, each with its cause and what to do."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from elizacloud.cli.command import FAILED, AsJson, command
from elizacloud.cli.output import is_terminal, one_line, print_json

if TYPE_CHECKING:
    from elizacloud.headscale.preflight import Finding

_MARKS = {"ok": ("✓", "green"), "warn": ("!", "yellow"), "fail": ("✗", "red")}


@command
async def doctor(
    data_dir: Annotated[Path | None, typer.Option(help="The data dir of `up`.")] = None, as_json: AsJson = False
) -> None:
    """Check binaries, data dir, ports, clock, Headscale, relay and agents; changes nothing. Exit code 1 if one fails."""
    with _waiting(silent=as_json):
        findings = await _examine(data_dir)
    failed = any(finding.verdict == "fail" for finding in findings)
    if as_json:
        print_json(
            {
                "ok": not failed,
                "findings": [
                    {"check": found.check, "verdict": found.verdict, "cause": found.cause, "fix": found.fix}
                    for found in findings
                ],
            }
        )
    else:
        for finding in findings:
            _print(finding)
    if failed:
        raise typer.Exit(FAILED)


async def _examine(data_dir: Path | None) -> list[Finding]:
    from elizacloud.cli.checks.agents import agents_checks
    from elizacloud.cli.checks.check import fail, ok, run_checks
    from elizacloud.cli.checks.control import control_checks
    from elizacloud.cli.checks.docker import docker_checks
    from elizacloud.cli.checks.facts import gather
    from elizacloud.cli.checks.machine import machine_checks
    from elizacloud.cli.checks.tailnet import tailnet_checks
    from elizacloud.errors import Misconfigured
    from elizacloud.log import configure_logging

    configure_logging(level="error")
    try:
        facts = gather(data_dir)
    except Misconfigured as error:
        return [fail("settings", str(error), "correct it, then run doctor again")]
    checks = [
        *machine_checks(facts),
        *docker_checks(facts),
        *control_checks(facts),
        *tailnet_checks(facts),
        *agents_checks(facts),
    ]
    return [ok("settings", "they can be used"), *await run_checks(checks)]


@contextlib.contextmanager
def _waiting(*, silent: bool) -> Iterator[None]:
    """A spinner on a terminal: some checks wait for what does not answer."""
    if silent or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status("looking"):
        yield


def _print(finding: Finding) -> None:
    mark, colour = _MARKS[finding.verdict]
    if is_terminal():
        typer.secho(f" {mark} ", fg=colour, nl=False)
        typer.echo(f"{finding.check:<22} {one_line(finding.cause)}")
        if finding.fix:
            typer.secho(f"   {'':<22} {one_line(finding.fix)}", fg=colour)
    else:
        typer.echo("\t".join([finding.verdict, finding.check, one_line(finding.cause), one_line(finding.fix)]))
