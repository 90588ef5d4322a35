"""/api/v1/tokens, and tokens that reach one agent."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from elizacloud.api.agents import PREFIX, AgentId
from elizacloud.api.parts import FromCaller, FromParts
from elizacloud.api.requests import CreateAgentToken, CreateToken
from elizacloud.api.schemas import (
    CreatedToken,
    Token,
    TokenPage,
    created_token_of,
    token_fields,
)
from elizacloud.model import Scope

router = APIRouter(tags=["tokens"])


@router.post("/api/v1/tokens", status_code=201, response_model=CreatedToken)
async def create_token(body: CreateToken, response: Response, caller: FromCaller, parts: FromParts) -> CreatedToken:
    """A new API token of the owner; its value is in this answer only."""
    scopes = frozenset(body.scopes) if body.scopes is not None else frozenset({Scope.OWNER})
    response.headers["Cache-Control"] = "no-store"
    return created_token_of(
        await parts.tokens.issue(
            caller.owner_id, body.name, by=caller.principal, scopes=scopes, expires_in_seconds=body.expires_in_seconds
        )
    )


@router.get("/api/v1/tokens", response_model=TokenPage)
async def list_tokens(caller: FromCaller, parts: FromParts) -> TokenPage:
    """The owner's tokens that are not revoked, newest first, without their values."""
    return TokenPage(items=[Token(**token_fields(token)) for token in await parts.tokens.list(caller.owner_id)])


@router.delete("/api/v1/tokens/{token_id}", status_code=204)
async def revoke_token(
    token_id: Annotated[str, Path(description="The token's id.", examples=["Zk3vWq8LmN2p"])],
    caller: FromCaller,
    parts: FromParts,
) -> None:
    """From now on nobody is let in with it. Again is no error."""
    await parts.tokens.revoke(token_id, caller.owner_id)


@router.post(PREFIX + "/{agent_id}/tokens", status_code=201, response_model=CreatedToken)
async def create_agent_token(
    agent_id: AgentId, body: CreateAgentToken, response: Response, caller: FromCaller, parts: FromParts
) -> CreatedToken:
    """A token that reaches this one agent and can do nothing else."""
    record = await parts.operations.get(agent_id, caller.owner_id)
    response.headers["Cache-Control"] = "no-store"
    return created_token_of(
        await parts.tokens.issue(
            record.agent.owner_id,
            body.name,
            by=caller.principal,
            scopes=frozenset({Scope.RELAY}),
            agent_id=agent_id,
            expires_in_seconds=body.expires_in_seconds,
        )
    )
