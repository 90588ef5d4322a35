"""One sentence on an agent: why it is not ready and what happens next. Pure; the API, the CLI and relays show it."""

from __future__ import annotations

from elizacloud.model import Agent
from elizacloud.states import State, Wanted

_ON_THE_WAY = {
    State.REQUESTED: "Its key is being minted and its instance created; then it is started.",
    State.KEYED: "Its instance is created and about to start; then it joins the tailnet.",
    State.STARTED: "Its instance runs and is joining the tailnet; then a relay asks it for a live answer.",
    State.JOINED: "It joined the tailnet; a relay is waiting for its first live answer, and it is ready then.",
    State.PAUSING: "It is finishing its requests and will then be paused.",
    State.PAUSED: "It is paused and wakes up at the next request.",
    State.STOPPING: "Its instance is being stopped; its state and address are kept.",
    State.STOPPED: "It is stopped; start it to use it again.",
    State.DELETING: "It is being deleted; it is shown until nothing is left of it.",
    State.TOMBSTONE: "It is deleted; what it left behind is being looked for twice before its last record goes.",
    State.GONE: "It is gone.",
}
_BY_HAND = {
    State.REQUESTED: "It has no usable key: restart it to get a new environment to start it with by hand.",
    State.STARTED: "It is waiting to be started by hand with the environment that was shown when it was created.",
}


def message(agent: Agent) -> str:
    """The sentence; with a failure it tells the reason, the next try and, if a person can do something, what."""
    if agent.failure is not None and (agent.state, agent.wanted) != (State.STOPPED, Wanted.STOPPED):
        return _failed(agent)
    if agent.state is State.READY:
        return _ready(agent)
    if agent.external and agent.state in _BY_HAND and agent.wanted is Wanted.RUNNING:
        return _BY_HAND[agent.state]
    if agent.wanted is Wanted.ASLEEP and agent.state is State.STOPPED:
        return "It is asleep and starts again at the next request."
    if agent.wanted is Wanted.RUNNING and agent.state in (State.STOPPING, State.STOPPED):
        return "It is being started again, and comes back as the same node if it can."
    if agent.wanted is Wanted.DELETED and agent.state is not State.TOMBSTONE:
        return _ON_THE_WAY[State.DELETING]
    return _ON_THE_WAY[agent.state]


def _ready(agent: Agent) -> str:
    if agent.agent_ready:
        return "It is ready."
    if agent.agent_ready is None:
        return "It can be reached; it does not say whether it is ready."
    return "It can be reached and says that it is not ready yet; it is asked again."


def _failed(agent: Agent) -> str:
    failure = agent.failure
    assert failure is not None
    times = "" if failure.attempts == 1 else f" {failure.attempts} times"
    # Steps are named by verbs, so that the name fits into the sentence.
    told = f"It failed{times} to {failure.step}: {failure.reason.rstrip('.')}"
    if failure.retry_at is not None:
        told += f"; the next try is at {failure.retry_at:%H:%M:%S} UTC"
    return f"{told}. {failure.fix}" if failure.fix else f"{told}."
