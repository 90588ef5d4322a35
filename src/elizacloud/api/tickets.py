"""One-time tickets for browsers, and the keys that our JWTs and assertions are checked with."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from fastapi import APIRouter, Request, Response

from elizacloud.api.agents import PREFIX, AgentId
from elizacloud.api.parts import FromParts, FromReaching, base_url
from elizacloud.api.schemas import Jwks, Ticket
from elizacloud.auth.access import Action, check_agent

router = APIRouter(tags=["tokens"])


@router.post(PREFIX + "/{agent_id}/tickets", status_code=201, response_model=Ticket)
async def create_ticket(
    agent_id: AgentId, request: Request, response: Response, caller: FromReaching, parts: FromParts
) -> Ticket:
    """A ticket that lets a browser in at this agent, once: by its page, or for one WebSocket or event stream."""
    owner_id = (await parts.operations.get(agent_id, caller.owner_id)).agent.owner_id
    check_agent(caller.principal, Action.REACH, agent_id=agent_id, agent_owner_id=owner_id, named_owner=caller.owner_id)
    ticket = await parts.credentials.tickets.issue(agent_id, owner_id, by=caller.principal)
    response.headers["Cache-Control"] = "no-store"
    value = ticket.value.get_secret_value()
    origin = agent_origin(base_url(request, parts), agent_id, parts.settings.relay_domain)
    url = f"{origin}/.elizacloud/session?{urlencode({'elizacloud_ticket': value})}"
    return Ticket(ticket=value, url=url, expires_at=ticket.expires_at)


@router.get("/.well-known/jwks.json", response_model=Jwks)
async def jwks(response: Response, parts: FromParts) -> Jwks:
    """The public keys of our JWTs (`typ` is `at+jwt`) and of the assertions that agents get (`elizacloud-assertion+jwt`)."""
    keys = parts.credentials.keys
    response.headers["Cache-Control"] = f"public, max-age={keys.fresh_seconds}"
    return Jwks.model_validate(keys.jwks())


def agent_origin(base: str, agent_id: str, relay_domain: str) -> str:
    """Where the agent's own page is: its host under the relay's domain, with scheme and port of the front door."""
    parts = urlsplit(base)
    return f"{parts.scheme}://{agent_id}.{relay_domain}" + ("" if parts.port is None else f":{parts.port}")
