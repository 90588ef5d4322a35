"""Finds where a request goes, or says why it goes nowhere: the front, then the caller, then room for one more."""

from __future__ import annotations

from elizacloud.errors import Unauthenticated
from elizacloud.relay.callers import subprotocols
from elizacloud.relay.callers.access import Ticket
from elizacloud.relay.callers.session import Sessions
from elizacloud.relay.callers.ticketed import ByTicket
from elizacloud.relay.callers.tickets import Tickets
from elizacloud.relay.destination import Destination, ToAgentDestination, ToAgents, ToApiDestination
from elizacloud.relay.dialling.pool import Pool
from elizacloud.relay.edge import Request
from elizacloud.relay.front import Fronts, ToAgent, ToOwn
from elizacloud.relay.own import ToOwnDestination


class Destinations:
    """One a worker."""

    def __init__(self, fronts: Fronts, agents: ToAgents, sessions: Sessions, tickets: Tickets, api: Pool) -> None:
        self._fronts = fronts
        self._agents = agents
        self._sessions = sessions
        self._tickets = tickets
        self._api = api

    def find(self, request: Request) -> Destination:
        """Notes on the request who asks for which agent. Raises an Error, BadMessage."""
        front = self._fronts.find(request.head)
        if isinstance(front, ToAgent):
            return self._to_agent(front, request)
        if isinstance(front, ToOwn):
            return ToOwnDestination(front, request, self._sessions)
        return ToApiDestination(front.target, self._api, request.forwarded_lines)

    def _to_agent(self, front: ToAgent, request: Request) -> ToAgentDestination:
        try:
            caller = self._agents.access.check(request, front)
        except Unauthenticated as error:
            raise self._sessions.invite(error, front, request) from error
        request.agent_id = front.agent_id
        offered = subprotocols.offered_by(request.head)
        if offered is not None:
            request.head = subprotocols.without_ours(request.head)
        if isinstance(caller, Ticket):
            destination: ToAgentDestination = ByTicket(front, request, self._agents, caller, self._tickets)
        else:
            request.admit(caller)
            destination = ToAgentDestination(front, request, self._agents)
            self._agents.limits.check(request, stream=destination.stream)
        destination.selects_ours = offered is not None and subprotocols.offers_ours(offered)
        return destination
