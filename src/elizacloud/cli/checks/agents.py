"""Each agent's path: what its state says of it, and whether its health answers through the relay.

The seed's troubleshooting list is here: cannot connect to Headscale, no address assigned, cannot be reached from the
frontend. Each is one finding with its cause and what to do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import datetime

import aiohttp

from elizacloud.cli.checks.check import Check, fail, ok, warn
from elizacloud.cli.checks.facts import Facts
from elizacloud.cli.output import one_line
from elizacloud.client import Agent, Client
from elizacloud.errors import Error, Unauthenticated
from elizacloud.headscale.preflight import Finding
from elizacloud.model import utc_now
from elizacloud.states import State

HEALTH_SECONDS = 10.0
AT_ONCE = 8
LONG_SECONDS = 60.0
"""An agent that is on its way for longer than this has something in its way."""


def agents_checks(facts: Facts) -> list[Check]:
    if facts.context.token is None:
        return []

    async def agents() -> Sequence[Finding]:
        async with Client(facts.context.url, facts.context.token) as client:
            try:
                found = [agent async for agent in client.agents()]
            except Unauthenticated:
                return []  # the token's own finding says it
            except Error as error:
                return [warn("agents", f"they could not be listed: {error}", "see the control plane's finding")]
            if not found:
                return [ok("agents", "there is none yet")]
            bound = asyncio.Semaphore(AT_ONCE)
            async with asyncio.TaskGroup() as tasks:
                looks = [
                    tasks.create_task(_look(client, agent, bound), name=f"look at {agent.agent_id}") for agent in found
                ]
            return [look.result() for look in looks]

    return [Check("agents", agents, within_seconds=60)]


async def _look(client: Client, agent: Agent, bound: asyncio.Semaphore) -> Finding:
    if agent.state is not State.READY:
        return state_finding(agent, utc_now())
    async with bound:
        began = time.monotonic()
        try:
            timeout = aiohttp.ClientTimeout(total=HEALTH_SECONDS)
            async with client.relay("GET", agent.agent_id, "/api/health", timeout=timeout) as answer:
                await answer.read()
        except Error as error:
            return path_finding(agent, error)
        return ready_finding(agent, client.url, time.monotonic() - began)


def ready_finding(agent: Agent, url: str, seconds: float) -> Finding:
    """It answers through the relay; says so where people look for a way for their browser."""
    cause = f"answers in {seconds * 1000:.0f} ms through {url}/api/relay/{agent.agent_id}/"
    if agent.agent_ready is False:
        return warn(_name(agent), f"{cause}, but says that it is not ready", _logs(agent))
    return ok(_name(agent), cause)


def path_finding(agent: Agent, error: Error) -> Finding:
    """It should be reachable and is not. Browsers never reach its address itself: the relay must."""
    fixes = {
        "agent_unroutable": "see the finding on the relay: it must be on the tailnet and see the agent as a peer",
        "agent_refused": f"it joined the tailnet, but nothing listens on its port: {_logs(agent)}",
        "agent_timeout": f"see the findings on the relay; if they are well, it is slow or hangs: {_logs(agent)}",
        "agent_starting": "try again in a moment",
        "timed_out": f"it is slow or hangs: {_logs(agent)}",
    }
    cause = f"cannot be reached through the relay ({error.reason}): {error}"
    return fail(_name(agent), cause, fixes.get(error.reason, "see the findings on the relay and the control plane"))


def state_finding(agent: Agent, now: datetime) -> Finding:
    """What its state says of an agent that is not ready."""
    name, message = _name(agent), one_line(agent.message) or f"it is {agent.status}"
    since = agent.since
    waiting_seconds = (now - since).total_seconds() if since else 0.0
    match agent.state:
        case State.STOPPED | State.STOPPING | State.PAUSED | State.PAUSING | State.DELETING | State.TOMBSTONE:
            return ok(name, f"{agent.status}: {message}")
        case _ if waiting_seconds < LONG_SECONDS:
            return warn(name, f"{agent.status}: {message}", "it is on its way: look again in a moment")
        case State.REQUESTED | State.KEYED:
            return fail(name, message, f"see the findings on Headscale and the runtime, and {_events(agent)}")
        case State.STARTED:
            # The seed's "can't connect to Headscale" and "IP not assigned".
            fix = (
                "check that the join address is reachable from where it runs and that its tailscaled runs "
                f"({_logs(agent)}); a key that was used or has expired is replaced by `elizacloud agent restart "
                f"{agent.agent_id}`; see Headscale's log"
            )
            return fail(name, f"it has no tailnet address after {waiting_seconds:.0f} s: {message}", fix)
        case State.JOINED:
            fix = f"its program does not answer on its port: {_logs(agent)}; see the finding on Headscale's policy"
            return fail(name, f"it is on the tailnet, but no relay gets a live answer from it: {message}", fix)
        case _:
            return warn(name, f"{agent.status}: {message}", f"see {_events(agent)}")


def _name(agent: Agent) -> str:
    return f"agent {agent.agent_id}"


def _logs(agent: Agent) -> str:
    return f"see `elizacloud agent logs {agent.agent_id}`"


def _events(agent: Agent) -> str:
    return f"`elizacloud agent events {agent.agent_id}`"
