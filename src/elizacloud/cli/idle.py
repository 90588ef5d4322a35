"""`elizacloud agent pause`, `agent sleep` and `agent idle`: rest now, and what is to become of agents that nobody uses."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from elizacloud.cli.command import AsJson, command
from elizacloud.cli.context import connect
from elizacloud.cli.output import print_fields, print_json
from elizacloud.errors import Invalid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from elizacloud.client import Agent, Client

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd]?)")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_NOT_SAID = "as below"

IdleAfter = Annotated[
    str | None,
    typer.Option("--idle-after", help="Pause it when nobody used it for so long: 90s, 15m, 2h, 1d or never."),
]
StopAfter = Annotated[
    str | None,
    typer.Option("--stop-after", help="Stop it when it was paused for so long; 0: stop it and do not pause it."),
]
REST_SECONDS = 60.0
AgentId = Annotated[str, typer.Argument(help="The agent's id, as `agent list` shows it.", metavar="AGENT")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is done, or only ask for it.")]
Timeout = Annotated[float, typer.Option("--timeout", help="Longest wait in seconds.", min=0.1)]
Owner = Annotated[str | None, typer.Option("--owner", help="Act for this owner; needs a service token.")]


@command
async def pause(
    agent_id: AgentId, owner: Owner = None, wait: Wait = True, timeout: Timeout = REST_SECONDS, as_json: AsJson = False
) -> None:
    """Freeze an agent until a request comes for it; its memory stays."""
    async with connect(owner_id=owner) as client:
        await _rest(client, await client.pause_agent(agent_id), "paused", timeout if wait else None, as_json=as_json)


@command
async def sleep(
    agent_id: AgentId, owner: Owner = None, wait: Wait = True, timeout: Timeout = REST_SECONDS, as_json: AsJson = False
) -> None:
    """Stop an agent until a request comes for it; its state, node and address are kept."""
    async with connect(owner_id=owner) as client:
        await _rest(client, await client.sleep_agent(agent_id), "stopped", timeout if wait else None, as_json=as_json)


async def _rest(client: Client, agent: Agent, state: str, within_seconds: float | None, *, as_json: bool) -> None:
    """Print what became of it, after it came to rest unless nobody waits for that."""
    from elizacloud.states import State

    if within_seconds is not None:
        agent = await client.wait_until(agent.agent_id, {State(state)}, within_seconds=within_seconds)
    if as_json:
        print_json(agent.as_json())
    else:
        typer.echo(f"{agent.agent_id} is {agent.status}")


@command
async def idle(
    agent_id: Annotated[
        str | None, typer.Argument(help="The agent; without one, all agents of the owner.", metavar="[AGENT]")
    ] = None,
    idle_after: IdleAfter = None,
    stop_after: StopAfter = None,
    awake: Annotated[
        list[str] | None,
        typer.Option(help='Hours in which it is awake, used or not, as "mon-fri 08:00-18:00"; repeatable; or never.'),
    ] = None,
    timezone: Annotated[str, typer.Option(help="The time zone of these hours, as Europe/Berlin.")] = "UTC",
    inherit: Annotated[bool, typer.Option("--inherit", help="Forget what was said before.")] = False,
    owner: Owner = None,
    as_json: AsJson = False,
) -> None:
    """Show or change what becomes of agents that nobody uses; what is not said is left to owner and settings."""
    said = policy(idle_after, stop_after, awake, timezone)
    async with connect(owner_id=owner) as client:
        now: Mapping[str, Any]
        if agent_id is None:
            now = await client.idle_policy()
        else:
            now = (await client.get_agent(agent_id)).idle_policy
        if said or inherit:
            now = said if inherit else {**now, **said}
            if agent_id is None:
                now = await client.set_idle_policy(now)
            else:
                now = (await client.update_agent(agent_id, {"idlePolicy": now or None})).idle_policy
    if as_json:
        print_json(dict(now))
        return
    print_fields([(name, _shown(now.get(wire))) for name, wire in _SHOWN])


_SHOWN = (("idle after", "idleAfterSeconds"), ("stop after", "stopAfterSeconds"), ("schedule", "schedule"))


def policy(
    idle_after: str | None, stop_after: str | None, awake: Sequence[str] | None = None, timezone: str = "UTC"
) -> dict[str, Any]:
    """What was said, by its wire names. Raises Invalid."""
    said: dict[str, Any] = {}
    if idle_after is not None:
        said["idleAfterSeconds"] = seconds(idle_after, "--idle-after")
    if stop_after is not None:
        said["stopAfterSeconds"] = seconds(stop_after, "--stop-after")
    if awake:
        said["schedule"] = "never" if list(awake) == ["never"] else {"timezone": timezone, "awake": list(awake)}
    return said


def seconds(text: str, option: str) -> float | str:
    """90s, 15m, 2h, 1d, a plain number of seconds, or never."""
    if text == "never":
        return text
    found = _DURATION.fullmatch(text)
    if found is None:
        raise Invalid(f"cannot read {option} {text!r}: write it as 90s, 15m, 2h, 1d or never")
    return float(found[1]) * _SECONDS[found[2]]


def _shown(value: Any) -> str:
    if value is None:
        return _NOT_SAID
    if isinstance(value, dict):
        return f"{', '.join(value['awake'])} ({value['timezone']})"
    return value if isinstance(value, str) else f"{value:g} s"
