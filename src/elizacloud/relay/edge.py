"""What the edge knows of a request before it goes anywhere, and adds to whatever the answer will be.

The same for agents, for the API and for the relay's own answers: none of it needs to know where the request goes.
"""

from __future__ import annotations

from elizacloud.relay.answers import Answer
from elizacloud.relay.cors import Cors, Preflight
from elizacloud.relay.http1.head import RequestHead


class Request:
    """One request as it came, and `edge_lines`, the header lines that its answer carries."""

    __slots__ = ("edge_lines", "head", "origin")

    def __init__(self, head: RequestHead, origin: bytes | None, edge_lines: bytes) -> None:
        self.head = head
        self.origin = origin
        self.edge_lines = edge_lines


class Edge:
    """One a worker."""

    def __init__(self, cors: Cors) -> None:
        self._cors = cors

    def receive(self, head: RequestHead) -> Request:
        origin = None
        for lower, _, value in head.fields:
            if lower == b"origin":
                origin = value if origin is None else b""  # two origins are none that we know
        return Request(head, origin, self._cors.answer_lines(origin))

    def own_answer(self, request: Request) -> Answer | Preflight | None:
        """The answer to a request that goes no further; None for all others."""
        return self._cors.preflight(request.head, request.origin)
