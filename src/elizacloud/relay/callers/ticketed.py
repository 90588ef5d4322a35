"""An agent for a caller who brought a ticket: who it is, is known once the control plane has consumed it."""

from __future__ import annotations

from elizacloud.relay.callers.access import Ticket
from elizacloud.relay.callers.tickets import Tickets
from elizacloud.relay.destination import ToAgentDestination, ToAgents
from elizacloud.relay.edge import Request
from elizacloud.relay.front import ToAgent
from elizacloud.relay.upstream import UpstreamConnection


class ByTicket(ToAgentDestination):
    """Uses none of the owner's budget, and touches no agent, before the ticket was accepted."""

    __slots__ = ("_accepted", "_ticket", "_tickets")

    def __init__(self, front: ToAgent, request: Request, shared: ToAgents, ticket: Ticket, tickets: Tickets) -> None:
        super().__init__(front, request, shared)
        self.flow = shared.throttle.flow(front.agent_id, shared.access.owner_of(front.agent_id))
        self._ticket = ticket
        self._tickets = tickets
        self._accepted = False
        """Also when the caller has lost the right to it since."""

    def began(self) -> None:
        pass

    def ended(self) -> None:
        if self._accepted:
            super().ended()
        elif self.flow is not None:
            self.flow.close()

    def lease(self) -> UpstreamConnection | None:
        return super().lease() if self._accepted else None

    async def connect(self) -> UpstreamConnection:
        if not self._accepted:
            redemption = await self._tickets.redeem(self._ticket.value, self._front.agent_id, session=False)
            caller = self._access.redeemed(self._ticket, redemption, self._front)
            self._request.owner_id = caller.owner_id
            self._limits.check(self._request, stream=self.stream)
            self._request.admit(caller)
            self._accepted = True
            super().began()
            if (pooled := self.lease()) is not None:
                return pooled
        return await super().connect()
