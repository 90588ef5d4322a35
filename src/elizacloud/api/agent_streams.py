"""/api/v1/agents/{id}/events and /logs, as they are now or followed, and /stats."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from elizacloud.api.agents import PREFIX, AgentId
from elizacloud.api.parts import FromCaller, FromParts
from elizacloud.api.schemas import AgentEvent, AgentStats, EventPage, event_of
from elizacloud.api.streams import Source, sse_answer, sse_frame, text_answer
from elizacloud.model import Event, utc_now
from elizacloud.states import State

EVENTS_MAX = 500
TAIL_MAX = 10_000
PEEK_SECONDS = 0.5
_SEQUENCE_MAX = 2**63 - 1
_EVENT_STREAM = "text/event-stream"

router = APIRouter(prefix=PREFIX, tags=["agents"])


@router.get(
    "/{agent_id}/events",
    response_model=EventPage,
    responses={200: {"content": {_EVENT_STREAM: {"schema": {"type": "string"}}}}},
)
async def agent_events(
    agent_id: AgentId,
    request: Request,
    caller: FromCaller,
    parts: FromParts,
    after: Annotated[int, Query(ge=0, le=_SEQUENCE_MAX, description="Only events after this sequence.")] = 0,
    limit: Annotated[int, Query(ge=1, le=EVENTS_MAX, description="The most events, without following.")] = EVENTS_MAX,
    follow: Annotated[bool, Query(description="As an event stream: go on with new events.")] = True,
    last_event_id: Annotated[str | None, Header(description="Resume an event stream after this event.")] = None,
) -> Response:
    """Every transition with its step, time and reason: as JSON, or with `Accept: text/event-stream` as they happen."""
    await parts.operations.get(agent_id, caller.owner_id)
    if not _wants_events(request):
        events = await parts.operations.events(agent_id, after=after, limit=limit)
        more = str(events[-1].sequence) if len(events) == limit else None
        page = EventPage(items=[event_of(event) for event in events], next=more)
        return JSONResponse(page.model_dump(mode="json", by_alias=True))
    begin = _sequence(last_event_id, after)
    if follow:
        source = Source(parts.operations.follow_events(agent_id, after=begin), parts.closing)
        return sse_answer(source, _frame, last=lambda event: event.state_to is State.GONE)
    known = await parts.operations.events(agent_id, after=begin, limit=limit)
    return Response("".join(_frame(event) for event in known), media_type=_EVENT_STREAM)


@router.get(
    "/{agent_id}/logs",
    response_class=Response,
    responses={
        200: {"content": {"text/plain": {"schema": {"type": "string"}}, _EVENT_STREAM: {"schema": {"type": "string"}}}}
    },
)
async def agent_logs(
    agent_id: AgentId,
    request: Request,
    caller: FromCaller,
    parts: FromParts,
    tail: Annotated[int, Query(ge=0, le=TAIL_MAX, description="How many of the last lines.")] = 100,
    follow: Annotated[bool, Query(description="Go on with new lines.")] = False,
) -> Response:
    """Lines of its output: as text, or with `Accept: text/event-stream` one event a line."""
    record = await parts.operations.get(agent_id, caller.owner_id)
    source = Source(parts.operations.logs(record, tail=tail, follow=follow), parts.closing)
    try:
        await source.peek(PEEK_SECONDS)
    except BaseException:
        await source.close()
        raise
    return sse_answer(source, sse_frame) if _wants_events(request) else text_answer(source)


@router.get("/{agent_id}/stats", response_model=AgentStats)
async def agent_stats(agent_id: AgentId, caller: FromCaller, parts: FromParts) -> AgentStats:
    """What it uses now: CPU time, memory and, where its network is its own, bytes. 409 `no_instance` while it does not run."""
    usage = await parts.operations.usage(await parts.operations.get(agent_id, caller.owner_id))
    return AgentStats(at=utc_now(), **asdict(usage))


def _wants_events(request: Request) -> bool:
    return _EVENT_STREAM in request.headers.get("accept", "")


def _sequence(last_event_id: str | None, after: int) -> int:
    """A client that comes back sends the id of the last event it saw; anything that is not one of ours is not believed."""
    if last_event_id is not None and last_event_id.isascii() and last_event_id.isdigit():
        return min(int(last_event_id[:19]), _SEQUENCE_MAX)
    return after


def _frame(event: Event) -> str:
    shown: AgentEvent = event_of(event)
    return sse_frame(shown.model_dump_json(by_alias=True), id_=str(event.sequence))
