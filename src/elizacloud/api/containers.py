"""/containers: what a container tells and asks, with the tokens of its present run. Served to containers alone, too."""

from __future__ import annotations

from fastapi import APIRouter, Response

from elizacloud.api.agents import AgentId
from elizacloud.api.parts import FromContainer, FromContainers
from elizacloud.api.requests import Busy, Report
from elizacloud.api.schemas import BusyUntil, NewKey, Reported

router = APIRouter(tags=["containers"])


@router.post(
    "/containers/{agent_id}/networking",
    response_model=Reported,
    responses={202: {"model": Reported, "description": "Headscale has no address for it yet."}},
)
async def report_address(
    agent_id: AgentId, body: Report, response: Response, token: FromContainer, containers: FromContainers
) -> Reported:
    """A hint that it has joined. Headscale's own record is what counts: 409 when that has another address."""
    if await containers.report_address(agent_id, token, body.headscale_ip):
        return Reported(status="confirmed")
    response.status_code = 202
    return Reported(status="unknown")


@router.post("/containers/{agent_id}/rekey", response_model=NewKey)
async def rekey(agent_id: AgentId, response: Response, token: FromContainer, containers: FromContainers) -> NewKey:
    """A new single-use key, when its node is missing or its run ended because the key was dead; 409 otherwise."""
    rekeyed = await containers.rekey(agent_id, token)
    response.headers["Cache-Control"] = "no-store"
    return NewKey(
        headscale_url=rekeyed.join_url,
        headscale_auth_key=rekeyed.key.value.get_secret_value(),
        expires_at=rekeyed.key.expires_at,
    )


@router.post("/containers/{agent_id}/busy", response_model=BusyUntil)
async def busy(agent_id: AgentId, body: Busy, token: FromContainer, containers: FromContainers) -> BusyUntil:
    """It works and must not be paused for a while."""
    return BusyUntil(busy_until=await containers.busy(agent_id, token, body.seconds))
