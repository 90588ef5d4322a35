"""A request's body on its way in: read by its framing, held to its cap and to a least rate."""

from __future__ import annotations

from elizacloud.relay.http1.body import Body, body_reader
from elizacloud.relay.http1.framing import Framing
from elizacloud.relay.http1.head import BadMessage, Field


class Intake:
    __slots__ = ("_body", "_left", "_most", "_since_look")

    def __init__(self, framing: Framing, most_bytes: int | None) -> None:
        """Raises BadMessage when it says itself that it is larger than allowed."""
        self._body: Body = body_reader(framing)
        self._most = most_bytes
        self._left = most_bytes
        self._since_look = 0
        if most_bytes is not None and framing.length > most_bytes:
            raise self._too_large()

    @property
    def done(self) -> bool:
        return self._body.done

    @property
    def trailers(self) -> list[Field]:
        return self._body.trailers

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """The next payload bytes, and what came after the end of the body. Raises BadMessage."""
        payload, rest = self._body.feed(data)
        size = len(payload)
        self._since_look += size
        if self._left is not None:
            self._left -= size
            if self._left < 0:
                raise self._too_large()
        return payload, rest

    def take_progress(self) -> int:
        """How many bytes came since the last call."""
        progress, self._since_look = self._since_look, 0
        return progress

    def _too_large(self) -> BadMessage:
        return BadMessage(f"its body is over {self._most} bytes", status=413, code="body_too_large")
