"""What a client's connection is in the middle of.

HEAD -> (exchange begins) -> BODY -> ANSWER -> HEAD ...       an upgrade ends in PIPE, a refused body in DISCARD
"""

from __future__ import annotations

from typing import Final


class State:
    """No Enum, for the reason that Kind (http1/framing.py) has."""

    HEAD: Final = "HEAD"
    """Between requests, or inside a head."""
    BODY: Final = "BODY"
    """The request's body is coming."""
    ANSWER: Final = "ANSWER"
    """The request is here as a whole; the next one waits."""
    PIPE: Final = "PIPE"
    """Upgraded: bytes pass as they are."""
    DISCARD: Final = "DISCARD"
    """The last answer is on its way; what still comes is thrown away, since closing now could destroy the answer."""
    CLOSED: Final = "CLOSED"
