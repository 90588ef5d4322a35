"""/api/v1/agents: create, list, read, change, delete, start, pause, sleep, stop, restart."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse

from elizacloud.agents.operations import Answer
from elizacloud.api.idempotency import once
from elizacloud.api.parts import FromCaller, FromParts
from elizacloud.api.requests import ChangeAgent, CreateAgent
from elizacloud.api.schemas import (
    EXAMPLE_ID,
    Agent,
    AgentPage,
    AgentWithEnvironment,
    agent_fields,
    agent_of,
)
from elizacloud.auth.access import acting_owner
from elizacloud.errors import Conflict
from elizacloud.model import AgentSpec
from elizacloud.states import State

PREFIX = "/api/v1/agents"
WAIT_MAX_SECONDS = 120
"""The relay waits a little longer for the answer (API_ANSWER_SECONDS of relay/destination.py)."""
_JOINED = frozenset({State.JOINED, State.READY})
_PREFER_WAIT = re.compile(r"wait\s*=\s*\"?(\d{1,4})\"?", re.IGNORECASE)

router = APIRouter(prefix=PREFIX, tags=["agents"])

AgentId = Annotated[str, Path(description="The agent's id.", examples=[EXAMPLE_ID])]


@router.post(
    "",
    status_code=201,
    response_model=AgentWithEnvironment,
    responses={202: {"model": AgentWithEnvironment, "description": "It is on its way; see Location."}},
)
async def create_agent(
    body: CreateAgent,
    request: Request,
    caller: FromCaller,
    parts: FromParts,
    wait: Annotated[
        float | None, Query(ge=0, le=WAIT_MAX_SECONDS, description="Seconds to wait for the join; 0 answers at once.")
    ] = None,
    prefer: Annotated[str | None, Header(description="`respond-async` answers at once (RFC 7240).")] = None,
    idempotency_key: Annotated[
        str | None,
        Header(
            description="A request that is sent again with it acts once.",
            json_schema_extra={"pattern": r"^[!-~](?:[ -~]{0,253}[!-~])?$"},
        ),
    ] = None,
) -> Response:
    """Create an agent and wait until it has joined the tailnet: 201 then, or 202 when the wait is over before."""
    owner_id = _owner_of(body, caller)
    operations = parts.operations

    async def act(agent_id: str | None) -> Response:
        created = await operations.create(
            owner_id, body.agent_name, body.apply_to(AgentSpec()), external=body.external, agent_id=agent_id
        )
        seconds = 0.0 if body.external else _wait_seconds(wait, prefer, parts.settings.create_wait_seconds)
        record = await operations.wait_until_joined(created.record.agent.id, owner_id, within_seconds=seconds)
        # One started by hand joins when its person gets to it: it is created as soon as the environment is known.
        done = record.agent.state in _JOINED or body.external
        return _with_environment(Answer(record, created.environment), 201 if done else 202)

    return await once(parts.idempotency, owner_id, idempotency_key, await request.json(), act)


@router.get("", response_model=AgentPage)
async def list_agents(
    response: Response,
    caller: FromCaller,
    parts: FromParts,
    limit: Annotated[int, Query(ge=1, le=200, description="The most agents on a page.")] = 100,
    cursor: Annotated[str | None, Query(max_length=512, description="`next` of the page before.")] = None,
) -> AgentPage:
    """The owner's agents, newest first."""
    page = await parts.operations.list(caller.owner_id, after=cursor, limit=limit)
    if page.next is not None:
        response.headers["Link"] = f'<{PREFIX}?limit={limit}&cursor={page.next}>; rel="next"'
    return AgentPage(items=[agent_of(record) for record in page.records], next=page.next)


@router.get("/{agent_id}", response_model=Agent)
async def get_agent(agent_id: AgentId, caller: FromCaller, parts: FromParts) -> Agent:
    return agent_of(await parts.operations.get(agent_id, caller.owner_id))


@router.patch("/{agent_id}", response_model=Agent)
async def change_agent(agent_id: AgentId, body: ChangeAgent, caller: FromCaller, parts: FromParts) -> Agent:
    """Rename it, or change what it is made of, which takes effect at its next start."""
    record = await parts.operations.change(agent_id, caller.owner_id, name=body.agent_name, spec=body.apply_to)
    return agent_of(record)


@router.delete("/{agent_id}", status_code=202, response_model=Agent)
async def delete_agent(agent_id: AgentId, caller: FromCaller, parts: FromParts) -> Agent:
    """Final. It is shown until nothing is left of it, and is 404 then."""
    return agent_of(await parts.operations.delete(agent_id, caller.owner_id))


@router.post("/{agent_id}/start", status_code=202, response_model=AgentWithEnvironment)
async def start_agent(agent_id: AgentId, caller: FromCaller, parts: FromParts) -> Response:
    return _with_environment(await parts.operations.start(agent_id, caller.owner_id), 202)


@router.post("/{agent_id}/pause", status_code=202, response_model=Agent)
async def pause_agent(agent_id: AgentId, caller: FromCaller, parts: FromParts) -> Agent:
    """Freeze it, once nothing is in flight, until a request comes for it. 409 `not_running` when it is stopped or asleep."""
    return agent_of((await parts.operations.pause(agent_id, caller.owner_id)).record)


@router.post("/{agent_id}/sleep", status_code=202, response_model=Agent)
async def sleep_agent(agent_id: AgentId, caller: FromCaller, parts: FromParts) -> Agent:
    """Stop it, once nothing is in flight, until a request comes for it. 409 `not_running` when it is stopped."""
    return agent_of((await parts.operations.sleep(agent_id, caller.owner_id)).record)


@router.post("/{agent_id}/stop", status_code=202, response_model=Agent)
async def stop_agent(agent_id: AgentId, caller: FromCaller, parts: FromParts) -> Agent:
    """Stop it until it is started; its node, address and state are kept."""
    return agent_of((await parts.operations.stop(agent_id, caller.owner_id)).record)


@router.post("/{agent_id}/restart", status_code=202, response_model=AgentWithEnvironment)
async def restart_agent(agent_id: AgentId, caller: FromCaller, parts: FromParts) -> Response:
    """Begin a new run. An external agent without a usable key gets a new environment."""
    return _with_environment(await parts.operations.restart(agent_id, caller.owner_id), 202)


def _owner_of(body: CreateAgent, caller: FromCaller) -> str:
    """The header and the body may both name the owner, but not two of them."""
    if body.owner_id is None:
        return caller.owner_id
    named = acting_owner(caller.principal, body.owner_id)
    if caller.owner_id not in (named, caller.principal.owner_id):
        raise Conflict("cannot tell whose agent it is: ownerId and the header name two owners", code="two_owners")
    return named


def _wait_seconds(wait: float | None, prefer: str | None, default: float) -> float:
    """The query says it most plainly, then `Prefer: respond-async` or `wait=N` (RFC 7240 sections 4.1 and 4.3)."""
    if wait is not None:
        return wait
    if prefer is not None:
        if found := _PREFER_WAIT.search(prefer):
            return min(float(found.group(1)), WAIT_MAX_SECONDS)
        if "respond-async" in prefer.lower():
            return 0.0
    return min(default, WAIT_MAX_SECONDS)


def _with_environment(answer: Answer, status: int) -> Response:
    shown = AgentWithEnvironment(**agent_fields(answer.record))
    exclude = {"environment"}
    if answer.environment is not None:
        exclude = set()
        shown.environment = {name: value.get_secret_value() for name, value in answer.environment.items()}
    body = shown.model_dump(mode="json", by_alias=True, exclude=exclude)
    headers = {"Location": f"{PREFIX}/{shown.agent_id}", "Cache-Control": "no-store"}
    return JSONResponse(body, status, headers)
