"""`elizacloud agent ...`: create agents, look at them, start, stop and delete them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elizacloud.cli import idle
from elizacloud.cli.command import AsJson, command
from elizacloud.cli.context import connect
from elizacloud.cli.operator import explain
from elizacloud.cli.output import ago, one_line, print_fields, print_json, print_table
from elizacloud.cli.page import open_page
from elizacloud.states import State

if TYPE_CHECKING:
    from elizacloud.client import Agent, AgentEvent, Client

app = typer.Typer(help="Create agents, look at them, start, stop and delete them.", no_args_is_help=True)
app.command("open")(open_page)
app.command("explain")(explain)
app.command("pause")(idle.pause)
app.command("sleep")(idle.sleep)
app.command("idle")(idle.idle)

AgentId = Annotated[str, typer.Argument(help="The agent's id, as `agent list` shows it.", metavar="AGENT")]
Owner = Annotated[str | None, typer.Option("--owner", help="Act for this owner; needs a service token.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done, or only ask for it.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Longest wait in seconds.", min=0.1)]

UP_SECONDS = 120.0
DOWN_SECONDS = 60.0


@app.command("create")
@command
async def create(
    name: Annotated[str, typer.Argument(help="A name for people, 1 to 100 characters.")],
    config: Annotated[Path | None, typer.Option(help="agentConfig: a JSON file, or - for standard input.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=value for the agent's environment; repeatable.")] = None,
    secret: Annotated[
        list[str] | None, typer.Option(help="NAME=file:/path of a secret for the agent; repeatable.")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Container image, where the runtime takes one.")] = None,
    idle_after: idle.IdleAfter = None,
    stop_after: idle.StopAfter = None,
    external: Annotated[
        bool, typer.Option(help="Only register it; prints the environment to start it by hand.")
    ] = False,
    key: Annotated[str | None, typer.Option(help="Idempotency-Key: the same key never makes a second agent.")] = None,
    owner: Owner = None,
    wait: Wait = True,
    timeout: Timeout = UP_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Create an agent and show how it comes up, until it is ready."""
    from elizacloud.cli.external import print_external
    from elizacloud.cli.inputs import named_values, read_config, read_secrets

    options: dict[str, Any] = {}
    if env:
        options["environment"] = named_values(env, "--env")
    if secret:
        options["secrets"] = read_secrets(secret)
    if image:
        options["image"] = image
    if policy := idle.policy(idle_after, stop_after):
        options["idlePolicy"] = policy
    async with connect(owner_id=owner) as client:
        agent = await client.create_agent(
            name,
            config=None if config is None else read_config(config),
            options=options,
            external=external,
            wait_seconds=0,
            idempotency_key=key,
        )
        if external:
            print_external(agent, as_json=as_json)
            return
        if wait:
            agent = await _come_up(client, agent, timeout, as_json=as_json)
    _print_agent(agent, as_json=as_json)


@app.command("list")
@command
async def list_agents(owner: Owner = None, as_json: AsJson = False) -> None:
    """List the agents of the owner."""
    async with connect(owner_id=owner) as client:
        agents = [agent async for agent in client.agents()]
    if as_json:
        print_json([agent.as_json() for agent in agents])
        return
    rows = [[agent.agent_id, agent.agent_name, agent.status, agent.ip or "", ago(agent.created_at)] for agent in agents]
    print_table(
        ["agent", "name", "status", "address", "created"],
        rows,
        empty="There is no agent yet: `elizacloud agent create NAME` makes one.",
    )


@app.command("show")
@command
async def show(agent_id: AgentId, owner: Owner = None, as_json: AsJson = False) -> None:
    """Show one agent."""
    async with connect(owner_id=owner) as client:
        agent = await client.get_agent(agent_id)
    _print_agent(agent, as_json=as_json)


@app.command("start")
@command
async def start(
    agent_id: AgentId, owner: Owner = None, wait: Wait = True, timeout: Timeout = UP_SECONDS, as_json: AsJson = False
) -> None:
    """Start a stopped agent; it comes back as the same node with the same address."""
    from elizacloud.cli.external import print_external

    async with connect(owner_id=owner) as client:
        before = await _last_event(client, agent_id)
        agent = await client.start_agent(agent_id)
        if agent.environment:
            print_external(agent, as_json=as_json)
            return
        if wait:
            agent = await _come_up(client, agent, timeout, as_json=as_json, after=before)
    _print_agent(agent, as_json=as_json)


@app.command("stop")
@command
async def stop(
    agent_id: AgentId, owner: Owner = None, wait: Wait = True, timeout: Timeout = DOWN_SECONDS, as_json: AsJson = False
) -> None:
    """Stop an agent; its state, node and address are kept."""
    async with connect(owner_id=owner) as client:
        await client.stop_agent(agent_id)
        agent = await client.get_agent(agent_id)
        if wait:
            agent = await client.wait_until(agent_id, {State.STOPPED}, within_seconds=timeout)
    _print_agent(agent, as_json=as_json)


@app.command("restart")
@command
async def restart(
    agent_id: AgentId, owner: Owner = None, wait: Wait = True, timeout: Timeout = UP_SECONDS, as_json: AsJson = False
) -> None:
    """Stop an agent and start it again; prints a new environment for one that is started by hand."""
    from elizacloud.cli.external import print_external

    async with connect(owner_id=owner) as client:
        before = await _last_event(client, agent_id)
        agent = await client.restart_agent(agent_id)
        if agent.environment:
            print_external(agent, as_json=as_json)
            return
        if wait:
            agent = await _come_up(client, agent, timeout, as_json=as_json, after=before, anew=True)
    _print_agent(agent, as_json=as_json)


@app.command("delete")
@command
async def delete(
    agent_id: AgentId,
    owner: Owner = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    wait: Wait = True,
    timeout: Timeout = DOWN_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Delete an agent with its node, key and state, for good."""
    import contextlib
    import sys

    from elizacloud.errors import NotFound

    async with connect(owner_id=owner) as client:
        if not yes and sys.stdin.isatty():
            agent = await client.get_agent(agent_id)
            typer.confirm(
                f"Delete {one_line(agent.agent_name)} ({agent_id}) and all of its state?", abort=True, err=True
            )
        await client.delete_agent(agent_id)
        if wait:
            # Not found is gone already: that is what was waited for.
            with contextlib.suppress(NotFound):
                await client.wait_until(agent_id, {State.TOMBSTONE, State.GONE}, within_seconds=timeout)
    if as_json:
        print_json({"agentId": agent_id, "deleted": True, "waited": wait})
    else:
        typer.echo(f"{agent_id} is {'deleted' if wait else 'being deleted'}")


@app.command("events")
@command
async def events(
    agent_id: AgentId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    after: Annotated[int, typer.Option(help="Only those after this one: `sequence` in what --json shows.", min=0)] = 0,
    owner: Owner = None,
    as_json: AsJson = False,
) -> None:
    """Show every transition of an agent, with its time and reason. A connection that breaks is taken up where it broke."""
    from elizacloud.cli.progress import event_line

    async with connect(owner_id=owner) as client:
        async for event in client.events(agent_id, after=after, following=follow):
            if as_json:
                typer.echo(event.model_dump_json(by_alias=True))
            else:
                typer.echo(event_line(event))


@app.command("logs")
@command
async def logs(
    agent_id: AgentId,
    tail: Annotated[int, typer.Option(help="How many of the last lines to show.", min=0, max=10_000)] = 100,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")] = False,
    owner: Owner = None,
    as_json: AsJson = False,
) -> None:
    """Show what an agent wrote to its output."""
    import json

    async with connect(owner_id=owner) as client:
        async for line in client.logs(agent_id, tail=tail, following=follow):
            typer.echo(json.dumps({"line": line}) if as_json else line)


@app.command("stats")
@command
async def stats(agent_id: AgentId, owner: Owner = None, as_json: AsJson = False) -> None:
    """Show what an agent uses: CPU time, memory, network."""
    async with connect(owner_id=owner) as client:
        used = await client.stats(agent_id)
    if as_json:
        print_json(used.as_json())
        return
    limit = f" of {_megabytes(used.memory_limit_bytes)}" if used.memory_limit_bytes else ""
    network = "not counted by its runtime"
    if used.received_bytes is not None and used.sent_bytes is not None:
        network = f"{_megabytes(used.received_bytes)} received, {_megabytes(used.sent_bytes)} sent"
    print_fields(
        [
            ("CPU", f"{used.cpu_seconds:.2f} s since its start"),
            ("memory", f"{_megabytes(used.memory_bytes)}{limit}"),
            ("network", network),
        ]
    )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


async def _come_up(
    client: Client, agent: Agent, timeout: float, *, as_json: bool, after: int | None = None, anew: bool = False
) -> Agent:
    """Show each transition after that event until the agent is ready, or ready anew."""
    from elizacloud.cli.progress import show_transitions

    with show_transitions(agent, silent=as_json) as on_event:
        return await client.wait_until(
            agent.agent_id, {State.READY}, within_seconds=timeout, on_event=on_event, after=after, anew=anew
        )


async def _last_event(client: Client, agent_id: str) -> int | None:
    last: AgentEvent | None = None
    async for event in client.events(agent_id, following=False):
        last = event
    return last.sequence if last else None


def _print_agent(agent: Agent, *, as_json: bool) -> None:
    if as_json:
        print_json(agent.as_json())
        return
    ready = {True: "yes", False: "not yet", None: "unknown"}[agent.agent_ready]
    print_fields(
        [
            ("agent", agent.agent_id),
            ("name", agent.agent_name),
            ("status", agent.status),
            ("address", agent.ip or "none yet"),
            ("says it is ready", ready),
            ("message", agent.message),
        ]
    )
