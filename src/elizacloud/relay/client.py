"""The connection that a request came by, as the exchange sees it; server.py and incoming.py are the real one."""

from __future__ import annotations

from typing import Protocol


class Client(Protocol):
    """The connection that the request came by."""

    keep_alive: bool
    """The client, and the worker, would use the connection for another request."""

    def write(self, data: bytes) -> None: ...

    def take_body(self) -> None:
        """Call `body` and `body_end` from now on; may do so before it returns."""

    def pause_body(self) -> None: ...

    def resume_body(self) -> None: ...

    def leave_body(self) -> None:
        """Nobody wants the rest of the body: the connection ends with this answer."""

    def become_pipe(self) -> None:
        """Call `piped_up` from now on with all that comes."""

    def answered(self) -> None:
        """The whole answer was written."""

    def abort(self) -> None:
        """The answer cannot be completed: make that seen by ending the connection."""

    def close(self) -> None:
        """End the connection after what was written has left."""
