"""What a caller is told of an agent that cannot be reached, where the errors of all do not say it."""

from __future__ import annotations

from elizacloud.errors import Error, Unavailable


class Unroutable(Unavailable):
    """There is no path to the agent now: nothing was sent."""

    code = "agent_unroutable"


class AgentTimeout(Error):
    code, status = "agent_timeout", 504
