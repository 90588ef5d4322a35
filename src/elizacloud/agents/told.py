"""What relays are told of an agent: an upstream when it can be reached, and otherwise why it cannot. Pure."""

from __future__ import annotations

from elizacloud.agents.messages import message
from elizacloud.errors import Conflict
from elizacloud.model import Agent
from elizacloud.states import ROUTABLE, SETTLING, WAKEABLE, State, Wanted
from elizacloud.store import Record
from elizacloud.upstreams import KnownAgent, Upstream


def upstream_of(record: Record) -> Upstream:
    """The agent's upstream; raise Conflict unless it has joined and its run has a token."""
    agent, generation, run = record.agent, record.generation, record.run
    if run is None or run.agent_token is None or generation.node_id is None or generation.ipv4 is None:
        raise Conflict(f"cannot reach the agent {agent.id}: it has not joined the tailnet", code="not_joined")
    return Upstream(
        agent_id=agent.id,
        owner_id=agent.owner_id,
        generation=generation.number,
        run=run.number,
        cell_id=agent.cell_id,
        node_id=generation.node_id,
        ip=generation.ipv4,
        agent_token=run.agent_token,
        health_path=agent.spec.health_path,
        routable=agent.state in ROUTABLE,
    )


_COMES_UP = SETTLING - {State.PAUSING, State.STOPPING} | {State.READY}


def known_agent(agent: Agent) -> KnownAgent:
    return KnownAgent(
        agent_id=agent.id,
        owner_id=agent.owner_id,
        state=agent.state,
        message=message(agent),
        wakeable=agent.wanted in WAKEABLE,
        # One that fails in one of these states may yet come up soon; one that was stopped by its failure waits for long.
        coming=agent.wanted is Wanted.RUNNING and (agent.state in _COMES_UP or agent.failure is None),
        health_path=agent.spec.health_path,
    )


def told_of(record: Record) -> Upstream | KnownAgent | None:
    """What relays have to know of the agent now; None when it is being deleted and they have to know nothing."""
    agent = record.agent
    if agent.state in (State.DELETING, State.TOMBSTONE, State.GONE):
        return None
    return upstream_of(record) if agent.state in ROUTABLE else known_agent(agent)
