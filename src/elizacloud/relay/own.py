"""The relay itself as the destination of a request: its own addresses on agents' hosts."""

from __future__ import annotations

from elizacloud.relay.answers import Answered
from elizacloud.relay.callers.session import Sessions
from elizacloud.relay.destination import Uncounted
from elizacloud.relay.edge import Request
from elizacloud.relay.front import ToOwn
from elizacloud.relay.http1.framing import Framing
from elizacloud.relay.http1.head import AnswerHead, RequestHead
from elizacloud.relay.upstream import UpstreamConnection


class ToOwnDestination(Uncounted):
    """It has no upstream: `connect` always raises, with the answer or with what is wrong."""

    __slots__ = ("_front", "_request", "_sessions", "kind")

    def __init__(self, front: ToOwn, request: Request, sessions: Sessions) -> None:
        self.kind = "relay"
        self._front = front
        self._request = request
        self._sessions = sessions

    def lease(self) -> UpstreamConnection | None:
        return None

    async def connect(self) -> UpstreamConnection:
        raise Answered(await self._sessions.answer(self._front, self._request))

    def give_back(self, connection: UpstreamConnection) -> None:
        raise AssertionError("there is no connection to give back")

    def request_head(self, head: RequestHead, framing: Framing, upgrade: bytes | None) -> bytes:
        raise AssertionError("there is nobody to send it to")

    def answer_lines(self, head: AnswerHead) -> bytes:
        raise AssertionError("nobody answers")
