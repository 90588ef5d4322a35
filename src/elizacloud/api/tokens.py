"""/api/v1/tokens, and tokens that reach one agent."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from elizacloud.api.agents import PREFIX, AgentId
from elizacloud.api.parts import ApiParts, Caller, FromCaller, FromParts
from elizacloud.api.requests import CreateJwt, NewAgentToken, NewToken
from elizacloud.api.schemas import (
    CreatedToken,
    Token,
    TokenPage,
    created_jwt_of,
    created_token_of,
    token_fields,
)
from elizacloud.model import Scope

router = APIRouter(tags=["tokens"])


@router.post("/api/v1/tokens", status_code=201, response_model=CreatedToken)
async def create_token(body: NewToken, response: Response, caller: FromCaller, parts: FromParts) -> CreatedToken:
    """A new API token of the owner, or a JWT that reaches all of the owner's agents; its value is in this answer only."""
    response.headers["Cache-Control"] = "no-store"
    if isinstance(body, CreateJwt):
        return _jwt(body, caller, parts, agent_id=None)
    scopes = frozenset(body.scopes) if body.scopes is not None else frozenset({Scope.OWNER})
    return created_token_of(
        await parts.credentials.tokens.issue(
            caller.owner_id, body.name, by=caller.principal, scopes=scopes, expires_in_seconds=body.expires_in_seconds
        )
    )


@router.get("/api/v1/tokens", response_model=TokenPage)
async def list_tokens(caller: FromCaller, parts: FromParts) -> TokenPage:
    """The owner's tokens that are not revoked, newest first, without their values."""
    return TokenPage(
        items=[Token(**token_fields(token)) for token in await parts.credentials.tokens.list(caller.owner_id)]
    )


@router.delete("/api/v1/tokens/{token_id}", status_code=204)
async def revoke_token(
    token_id: Annotated[str, Path(description="The token's id.", examples=["Zk3vWq8LmN2p"])],
    caller: FromCaller,
    parts: FromParts,
) -> None:
    """From now on nobody is let in with it, or with what was made with it: JWTs, tickets, sessions. Again is no error."""
    await parts.credentials.tokens.revoke(token_id, caller.owner_id)


@router.post(PREFIX + "/{agent_id}/tokens", status_code=201, response_model=CreatedToken)
async def create_agent_token(
    agent_id: AgentId, body: NewAgentToken, response: Response, caller: FromCaller, parts: FromParts
) -> CreatedToken:
    """A token, or a JWT, that reaches this one agent and can do nothing else."""
    record = await parts.operations.get(agent_id, caller.owner_id)
    response.headers["Cache-Control"] = "no-store"
    if isinstance(body, CreateJwt):
        return _jwt(body, caller, parts, agent_id=agent_id)
    return created_token_of(
        await parts.credentials.tokens.issue(
            record.agent.owner_id,
            body.name,
            by=caller.principal,
            scopes=frozenset({Scope.RELAY}),
            agent_id=agent_id,
            expires_in_seconds=body.expires_in_seconds,
        )
    )


def _jwt(body: CreateJwt, caller: Caller, parts: ApiParts, *, agent_id: str | None) -> CreatedToken:
    return created_jwt_of(
        parts.credentials.jwts.issue(
            caller.owner_id, by=caller.principal, agent_id=agent_id, expires_in_seconds=body.expires_in_seconds
        )
    )
