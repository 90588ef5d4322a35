"""`elizacloud sweep` and `elizacloud agent explain`: for operators, with a service token."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from elizacloud.cli.command import AsJson, command
from elizacloud.cli.context import connect
from elizacloud.cli.output import ago, one_line, print_fields, print_json, print_table

if TYPE_CHECKING:
    from elizacloud.client.answers import Explanation

_WHAT_HAPPENS = {
    "repair": ("would be repaired", "repaired"),
    "wait": ("has to be seen once more", "has to be seen once more"),
    "hold": ("held", "held"),
    "tell": ("left as it is", "left as it is"),
}


@command
async def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept", help="Do what is held, and take database, Headscale and relays for right as they are."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare store, runtime and Headscale now: what differs, what is done about it, what is held and why."""
    async with connect() as client:
        swept = await client.sweep(dry_run=dry_run, accept=accept)
    if as_json:
        print_json(swept.as_json())
        return
    rows = [
        [one.kind, one.agent_id, one.about, _WHAT_HAPPENS.get(one.outcome, (one.outcome,) * 2)[not dry_run], one.detail]
        for one in swept.findings
    ]
    print_table(
        ["found", "agent", "about", "what happens", "detail"], rows, empty="Store, runtime and Headscale agree."
    )
    if swept.held_because:
        typer.echo(f"elizacloud: held: {one_line(swept.held_because)}", err=True)


@command
async def explain(
    agent_id: Annotated[str, typer.Argument(help="The agent's id, whoever's it is.", metavar="AGENT")],
    as_json: AsJson = False,
) -> None:
    """Show an agent as the store, the runtime and Headscale see it, why it is not ready, and what happens next."""
    async with connect() as client:
        found = await client.explain(agent_id)
    if as_json:
        print_json(found.as_json())
        return
    print_fields(_fields(found))


def _fields(found: Explanation) -> list[tuple[str, str]]:
    agent = found.agent
    fields = [("agent", f"{agent.agent_id} ({agent.agent_name}), {agent.status}"), ("message", agent.message)]
    fields.append(("next", found.next_step or "nothing: it is where its owner wants it"))
    for one in found.store.generations:
        key = "no key" if one.key_id is None else f"key {one.key_id}{' (expired)' if one.key_expired else ''}"
        node = "no node" if one.node_id is None else f"node {one.node_id} at {one.ipv4}"
        fields.append(("store", f"generation {one.number}: {key}, {node}"))
    run = found.store.run
    if run is not None:
        how = f"ended: {run.end_reason}" if run.ended_at else "ready" if run.ready_at else "not ready yet"
        fields.append(("store", f"run {run.generation}.{run.number}: {run.ref or 'no instance'}, {how}"))
    fields += _told("runtime", found.runtime.error, _of_runtime(found))
    fields += _told("headscale", found.headscale.error, _of_headscale(found))
    fields += [("found", _joined(one.kind, one.about, one.detail)) for one in found.findings]
    return fields


def _of_runtime(found: Explanation) -> list[str]:
    lines = []
    for one in found.runtime.instances:
        ended = "" if one.exit_code is None else f"exit {one.exit_code}"
        lines.append(_joined(f"instance {one.ref} {one.phase}", ended, one.reason))
    return lines + [
        f"volume of generation {one.generation}{'' if one.whole else ', not whole'}" for one in found.runtime.volumes
    ]


def _of_headscale(found: Explanation) -> list[str]:
    lines = []
    for node in found.headscale.nodes:
        seen = "online" if node.online else f"offline, seen {ago(node.last_seen)}" if node.last_seen else "offline"
        lines.append(f"node {node.node_id} {node.hostname} at {node.ipv4}, key {node.key_id}, {seen}")
    return lines + [f"key {key.key_id}, {'used' if key.used else 'not used'}" for key in found.headscale.keys]


def _told(name: str, error: str | None, lines: list[str]) -> list[tuple[str, str]]:
    if error:
        return [(name, error)]
    return [(name, line) for line in lines] or [(name, "nothing of it")]


def _joined(*parts: Any) -> str:
    return ", ".join(str(part) for part in parts if part)
