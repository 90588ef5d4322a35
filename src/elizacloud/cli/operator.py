"""`elizacloud sweep` and `elizacloud agent explain`: for operators, with a service token."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elizacloud.cli.command import AsJson, command
from elizacloud.cli.context import connect
from elizacloud.cli.output import ago, one_line, print_fields, print_json, print_table

if TYPE_CHECKING:
    from elizacloud.client.answers import Explanation, HealthAnswer, SeenInstance, SeenNode, StoredRun

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
    """Show an agent as the store, the runtime and Headscale see it, what it answers, and what happens next and why."""
    async with connect() as client:
        found = await client.explain(agent_id)
    if as_json:
        print_json(found.as_json())
        return
    agent = found.agent
    fields = [("agent", f"{agent.agent_id} ({agent.agent_name}), {agent.status}"), ("message", agent.message)]
    if found.why:
        fields.append(("why", found.why))
    if found.runtime.host_id:
        fields.append(("host", found.runtime.host_id))
    if found.answer is not None:
        fields.append(("answer", _answer(found.answer)))
    print_fields([*fields, ("next", found.next_step or "nothing: it is where its owner wants it")])
    print_table(["", "store", "runtime", "headscale"], side_by_side(found), empty="")
    problems = [("runtime", found.runtime.error), ("headscale", found.headscale.error), ("found", found.findings_error)]
    told = [(name, error) for name, error in problems if error]
    told += [("found", _joined(one.kind, one.about, one.detail)) for one in found.findings]
    if told:
        print_fields(told)


def side_by_side(found: Explanation) -> list[tuple[str, ...]]:
    """A row for each thing that one of them has: "?" where one did not answer, "-" where it has none."""
    store, runtime, headscale = found.store, found.runtime, found.headscale
    # The newest generation first: the older ones are history.
    generations = sorted(store.generations, key=lambda one: one.number, reverse=True)
    unknown = {"runtime": ["?"] if runtime.error else None, "headscale": ["?"] if headscale.error else None}
    nodes = [_node(node) for node in headscale.nodes]
    keys = [f"{key.key_id}, {'used' if key.used else 'not used'}" for key in headscale.keys]
    volumes = [f"generation {one.generation}{'' if one.whole else ', not whole'}" for one in runtime.volumes]
    stored_nodes = [f"{one.node_id} at {one.ipv4}" for one in generations if one.node_id]
    stored_keys = [f"{one.key_id}{', expired' if one.key_expired else ''}" for one in generations if one.key_id]
    things: list[tuple[str, list[str], list[str], list[str]]] = [
        ("node", stored_nodes, [], unknown["headscale"] or nodes),
        ("key", stored_keys, [], unknown["headscale"] or keys),
        (
            "instance",
            [_run(store.run)] if store.run else [],
            unknown["runtime"] or list(map(_instance, runtime.instances)),
            [],
        ),
        ("volume", [f"generation {one.number}" for one in generations[:1]], unknown["runtime"] or volumes, []),
    ]
    return [(name, *cells) for name, *columns in things for cells in zip_longest(*columns, fillvalue="-")]


_SAYS = {True: "says that it is ready", False: "says that it is not ready", None: ""}


def _answer(answer: HealthAnswer) -> str:
    if answer.status is None:
        return f"none to a relay, just now: {answer.error}"
    return _joined(f"{answer.status} to a relay, just now", _SAYS[answer.ready])


def _node(node: SeenNode) -> str:
    seen = "online" if node.online else f"offline, seen {ago(node.last_seen)}" if node.last_seen else "offline"
    expires = ""
    if node.expires_at is not None:
        verb = "expired" if node.expires_at <= datetime.now(UTC) else "expires"
        expires = f"{verb} {node.expires_at:%Y-%m-%d %H:%M:%S} UTC"
    return _joined(f"{node.node_id} at {node.ipv4}, {node.hostname}, key {node.key_id}", seen, expires)


def _run(run: StoredRun) -> str:
    how = f"ended: {run.end_reason}" if run.ended_at else "ready" if run.ready_at else "not ready yet"
    return f"{run.ref or 'none'} of run {run.generation}.{run.number}, {how}"


def _instance(instance: SeenInstance) -> str:
    ended = "" if instance.exit_code is None else f"exit {instance.exit_code}"
    return _joined(f"{instance.ref} {instance.phase}", ended, instance.reason)


def _joined(*parts: Any) -> str:
    return ", ".join(str(part) for part in parts if part)
