"""Where one request goes: an agent, or the API. Both look the same to an exchange."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from elizacloud.errors import Unavailable
from elizacloud.relay.answers import Answered
from elizacloud.relay.callers import query, subprotocols, waiting
from elizacloud.relay.callers.access import Access
from elizacloud.relay.callers.assertion import Assertions
from elizacloud.relay.dialling.pool import Pool
from elizacloud.relay.edge import Request
from elizacloud.relay.front import PATH_PREFIX, ToAgent
from elizacloud.relay.headers import hygiene, redirect
from elizacloud.relay.http1.framing import Framing
from elizacloud.relay.http1.head import AnswerHead, RequestHead, kept_with_head, value_of
from elizacloud.relay.limits import Limits
from elizacloud.relay.reach import AgentPool, Reach
from elizacloud.relay.throttle import Flow, Throttle
from elizacloud.relay.upstream import UpstreamConnection
from elizacloud.relay.uses import OpenStream
from elizacloud.upstreams import Upstream

API_ANSWER_SECONDS = 180.0
"""Until the API's answer begins: it may wait for two minutes for an agent (WAIT_MAX_SECONDS of api/agents.py)."""


class Destination(Protocol):
    """`kind` is a metric's label. `began` and `ended` frame the exchange, whatever becomes of it."""

    kind: str
    flow: Flow | None
    """Holds the bytes to a rate; None when nothing does."""
    answer_seconds: float | None
    """The longest time until the answer begins; None for the one that is set for agents."""

    def began(self) -> None: ...

    def ended(self) -> None: ...

    def became_stream(self) -> OpenStream | None:
        """The answer will not end soon: who watches what passes on it, if anybody does. Raises TooMany."""

    def lease(self) -> UpstreamConnection | None:
        """A pooled connection that may be written to in this step of the event loop."""

    async def connect(self) -> UpstreamConnection:
        """A new connection, likewise, after waiting as long as that makes sense. Raises an Error."""

    def give_back(self, connection: UpstreamConnection) -> None: ...

    def request_head(self, head: RequestHead, framing: Framing, upgrade: bytes | None) -> bytes: ...

    def answer_lines(self, head: AnswerHead) -> bytes: ...


@dataclass(frozen=True, slots=True)
class ToAgents:
    """What all destinations of a worker that are agents share."""

    reach: Reach
    limits: Limits
    throttle: Throttle
    access: Access
    assertions: Assertions


class ToAgentDestination:
    __slots__ = (
        "_access",
        "_assertions",
        "_front",
        "_limits",
        "_open",
        "_poll",
        "_pool",
        "_reach",
        "_request",
        "_uses",
        "flow",
        "kind",
        "selects_ours",
        "stream",
    )
    answer_seconds: float | None = None

    def __init__(self, front: ToAgent, request: Request, shared: ToAgents) -> None:
        self.kind = "agent"
        self._front = front
        self._reach = shared.reach
        self._uses = shared.reach.uses
        self._request = request
        self._limits = shared.limits
        self._access = shared.access
        self._assertions = shared.assertions
        self.stream = _asks_for_stream(request.head)
        """It is counted as a stream, and not as a request in flight."""
        self.flow = shared.throttle.flow(request.agent_id, request.owner_id)
        self.selects_ours = False
        """The client offered our subprotocol, which the answer selects if the agent selects none."""
        self._pool: AgentPool | None = None
        self._poll: bool | None = None
        """It asks the health path and nothing else; None while that is not known. It is no use of the agent."""
        self._open: OpenStream | None = None

    def began(self) -> None:
        self._uses.began(self._front.agent_id)
        self._limits.enter(self._request, stream=self.stream)

    def ended(self) -> None:
        if self._poll:
            self._uses.poll_ended(self._front.agent_id)
        if self._open is not None:
            self._uses.stream_ended(self._front.agent_id)
        self._uses.ended(self._front.agent_id)
        self._limits.leave(self._request, stream=self.stream)
        if self.flow is not None:
            self.flow.close()

    def became_stream(self) -> OpenStream | None:
        if not self.stream:
            self._limits.check_stream(self._request)
            self._limits.leave(self._request, stream=False)
            self._limits.enter(self._request, stream=True)
            self.stream = True
        head = self._request.head
        if head.method == b"GET":  # by another method somebody waits for work that was ordered
            upgraded = value_of(head.fields, b"upgrade") is not None
            self._open = self._reach.open_stream(self._front.agent_id, upgraded=upgraded)
        return self._open

    def lease(self) -> UpstreamConnection | None:
        if self.flow is not None and self.flow.passed(0):
            return None
        pool = self._pool = self._reach.pool(self._front.agent_id)
        if pool is None:
            return None
        if self._poll is None:
            self._note(pool.health_target)
        return pool.lease()

    def _note(self, health_target: bytes) -> float | None:
        """Count it as a use of the agent, or as a poll; of a poll, how long after the one before."""
        target = self._front.target
        self._poll = target.startswith(health_target) and target[len(health_target) :][:1] in (b"", b"?")
        if self._poll:
            return self._uses.poll_began(self._front.agent_id)
        self._uses.used.add(self._front.agent_id)
        return None

    async def connect(self) -> UpstreamConnection:
        if self.flow is not None:
            await self.flow.paid_off()
            if (pooled := self.lease()) is not None:
                return pooled
        agent_id = self._front.agent_id
        known = self._reach.sleeping(agent_id) if self._poll is None else None
        poll_gap_seconds = None if known is None else self._note(known.health_path.encode("utf-8"))
        if waiting.is_navigation(self._front, self._request.head):
            upstream = await self._soon_for_a_page(agent_id)
        else:
            upstream = await self._reach.soon_ready(agent_id, poll_gap_seconds=poll_gap_seconds)
        self._pool = pool = self._reach.pool_of(upstream)
        if self._poll is None:
            self._note(pool.health_target)
        return await self._reach.connect(upstream)

    async def _soon_for_a_page(self, agent_id: str) -> Upstream:
        """A person looks at a page meanwhile, which asks again by itself."""
        try:
            return await self._reach.soon_ready(agent_id, within_seconds=waiting.PAGE_AFTER_SECONDS)
        except Unavailable as error:
            if error.reason != "agent_starting":
                raise
            raise Answered(waiting.waiting_page()) from error

    def give_back(self, connection: UpstreamConnection) -> None:
        assert self._pool is not None
        self._pool.give_back(connection)

    def request_head(self, head: RequestHead, framing: Framing, upgrade: bytes | None) -> bytes:
        request, pool = self._request, self._pool
        assert pool is not None
        assert request.caller is not None
        target, authorization_line = self._front.target, pool.authorization_line
        if b"?" in target:
            target = query.without_credentials(target, self._access.is_ours)
        if request.agent_authorization is not None:
            authorization_line = b"Authorization: " + request.agent_authorization + b"\r\n"
        elif upgrade is not None:
            target = query.with_agent_token(target, pool.upstream.agent_token.get_secret_value())
        forwarded_lines = request.forwarded_lines + self._assertions.line(request.agent_id, request.caller)
        if self._front.by_path:
            forwarded_lines += pool.prefix_line
        return hygiene.agent_request(
            head,
            target=target,
            framing=framing,
            upgrade=upgrade,
            host_line=pool.host_line,
            authorization_line=authorization_line,
            forwarded_lines=forwarded_lines,
            by_path=self._front.by_path,
        )

    def answer_lines(self, head: AnswerHead) -> bytes:
        lines = hygiene.agent_answer_by_path(head) if self._front.by_path else hygiene.agent_answer_by_host(head)
        location = redirect.location_of(head)
        if location is not None:
            lines += self._location_line(location)
        return lines + subprotocols.selection(head) if self.selects_ours and head.status == 101 else lines

    def _location_line(self, location: bytes) -> bytes:
        assert self._pool is not None
        front, request = self._front, self._request
        came = redirect.Front(
            own=self._pool.host_line[len(b"Host: ") : -2],
            hosts=(request.head.host, *redirect.forwarded_hosts(request.forwarded_lines)),
            prefix=PATH_PREFIX + front.agent_id.encode("ascii") if front.by_path else b"",
            target=front.target,
        )
        sent_on = redirect.location(location, came)
        return b"" if sent_on is None else b"Location: " + sent_on + b"\r\n"


class Uncounted:
    """What a destination that is no agent has in common: no limit counts its requests, and none holds back its bytes."""

    __slots__ = ()
    flow: Flow | None = None
    answer_seconds: float | None = API_ANSWER_SECONDS

    def began(self) -> None:
        pass

    def ended(self) -> None:
        pass

    def became_stream(self) -> OpenStream | None:
        return None


class ToApiDestination(Uncounted):
    __slots__ = ("_forwarded_lines", "_pool", "_target", "kind")

    def __init__(self, target: bytes, pool: Pool, forwarded_lines: bytes) -> None:
        self.kind = "api"
        self._target = target
        self._pool = pool
        self._forwarded_lines = forwarded_lines

    def lease(self) -> UpstreamConnection | None:
        return self._pool.lease()

    async def connect(self) -> UpstreamConnection:
        return await self._pool.connect()

    def give_back(self, connection: UpstreamConnection) -> None:
        self._pool.give_back(connection)

    def request_head(self, head: RequestHead, framing: Framing, upgrade: bytes | None) -> bytes:
        return hygiene.api_request(
            head, target=self._target, framing=framing, upgrade=upgrade, forwarded_lines=self._forwarded_lines
        )

    def answer_lines(self, head: AnswerHead) -> bytes:
        return hygiene.api_answer(head)


@kept_with_head
def _asks_for_stream(head: RequestHead) -> bool:
    """As a WebSocket and an EventSource do."""
    return any(
        lower == b"upgrade" or (lower == b"accept" and b"text/event-stream" in value) for lower, _, value in head.fields
    )


@kept_with_head
def is_event_stream(head: AnswerHead) -> bool:
    return b"text/event-stream" in (value_of(head.fields, b"content-type") or b"")
