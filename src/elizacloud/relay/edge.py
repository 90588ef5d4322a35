"""What the edge knows of a request before it goes anywhere, and adds to whatever the answer will be.

The same for agents, for the API and for the relay's own answers: none of it needs to know where the request goes.
"""

from __future__ import annotations

from time import perf_counter

from elizacloud.relay.answers import OwnAnswer
from elizacloud.relay.callers.caller import Caller
from elizacloud.relay.headers.cors import Cors
from elizacloud.relay.headers.forwarded import Peer, Proxies, host_line
from elizacloud.relay.headers.trace import TRACE_FIELDS, new_trace, trace_of
from elizacloud.relay.http1.head import Field, RequestHead, kept_with_head

_UNREAD = RequestHead(b"", b"", 1, [], b"")


class Request:
    """One request as it came. `edge_lines` are the header lines that its answer carries, `forwarded_lines` those that
    tell an agent or the API of the client and the trace. What follows them is known once access is granted."""

    __slots__ = (
        "agent_authorization",
        "agent_id",
        "began_at",
        "caller",
        "client",
        "edge_lines",
        "for_owner",
        "forwarded_lines",
        "head",
        "id",
        "origin",
        "owner_id",
        "trace_id",
    )

    def __init__(
        self,
        head: RequestHead,
        origin: bytes | None,
        client: str,
        request_id: str,
        trace_id: str,
        edge_lines: bytes,
        forwarded_lines: bytes,
    ) -> None:
        self.head = head
        self.origin = origin
        self.client = client
        self.id = request_id
        self.trace_id = trace_id
        self.edge_lines = edge_lines
        self.forwarded_lines = forwarded_lines
        self.began_at = perf_counter()
        self.agent_id = ""
        self.owner_id = ""
        self.for_owner = False
        """The caller's token is one of the owner's own, not one that only reaches agents."""
        self.caller: Caller | None = None
        self.agent_authorization: bytes | None = None
        """The client's Authorization, when it is meant for the agent: its credential for us is another one."""

    def admit(self, caller: Caller) -> None:
        self.caller = caller
        self.owner_id = caller.owner_id
        self.for_owner = caller.is_owner


class Edge:
    """One a worker."""

    def __init__(self, cors: Cors, proxies: Proxies) -> None:
        self._cors = cors
        self.proxies = proxies

    def receive(self, head: RequestHead, peer: Peer) -> Request:
        origin, named, host_line = _read_here(head)
        request_id, trace_id, trace_lines = trace_of(named, trusted=peer.trusted) if named else new_trace()
        if peer.trusted:
            client, forwarded_lines = self.proxies.client(peer, head)
        else:
            client, forwarded_lines = peer.address, peer.lines + host_line
        return Request(
            head,
            origin,
            client,
            request_id,
            trace_id,
            self._cors.answer_lines(origin) + f"X-Request-Id: {request_id}\r\n".encode("ascii"),
            forwarded_lines + trace_lines.encode("latin-1"),
        )

    def unread(self, peer: Peer) -> Request:
        """Stands for a request whose head cannot be read: it has an id, a client, and nothing else."""
        return self.receive(_UNREAD, peer)

    def own_answer(self, request: Request) -> OwnAnswer | None:
        """The answer to a request that goes no further; None for all others."""
        return self._cors.preflight(request.head, request.origin)


@kept_with_head
def _read_here(head: RequestHead) -> tuple[bytes | None, list[Field], bytes]:
    """The origin, the fields that name the request and its trace, and the X-Forwarded-Host line."""
    origins = [value for lower, _, value in head.fields if lower == b"origin"]
    named = [field for field in head.fields if field[0] in TRACE_FIELDS]
    if len(origins) > 1:
        origins = [b""]  # two origins are none that we know
    return origins[0] if origins else None, named, host_line(head)
