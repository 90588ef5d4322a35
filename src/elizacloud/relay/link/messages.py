"""What control plane and relay workers say to each other: one JSON object a line, typed, bounded in size.

The table comes as a snapshot, then as changes with revisions. A worker that sees a gap says `Resync`. Secrets travel in
clear, so the link is a 0600 socket on one machine and never reachable through the front door.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, SecretStr, TypeAdapter, ValidationError

from elizacloud.errors import Invalid
from elizacloud.upstreams import Change, PeerSeen, Probe, Redemption, Snapshot, Upstream, WakeRefusal

T = TypeVar("T")

PROTOCOL = 3
MAX_DOWN_BYTES = 64 << 20
"""The longest line that a worker accepts: a snapshot of some 100,000 agents."""
MAX_UP_BYTES = 1 << 20
HEARTBEAT_SECONDS = 2.0
SILENCE_SECONDS = 6.0
"""An end that hears nothing for this long gives the connection up."""


@dataclass(frozen=True, slots=True)
class Table:
    snapshot: Snapshot
    read_seconds_ago: float | None = None
    """How long ago the control plane last read its database; None when that is not known."""
    kind: Literal["table"] = "table"


@dataclass(frozen=True, slots=True)
class Changed:
    change: Change
    kind: Literal["changed"] = "changed"


@dataclass(frozen=True, slots=True)
class AskProbe:
    id: int
    upstream: Upstream
    within_seconds: float
    kind: Literal["ask_probe"] = "ask_probe"


@dataclass(frozen=True, slots=True)
class AskDrain:
    """Say when nothing of the agent is in flight any more, or that the time was too short."""

    id: int
    agent_id: str
    within_seconds: float
    kind: Literal["ask_drain"] = "ask_drain"


@dataclass(frozen=True, slots=True)
class RefuseWake:
    refusal: WakeRefusal
    kind: Literal["refuse_wake"] = "refuse_wake"


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Down, it also says that the control plane could read its database just now."""

    kind: Literal["heartbeat"] = "heartbeat"


@dataclass(frozen=True, slots=True)
class Alive:
    """The control plane is there, but cannot read its database: the link stays, and what was heard ages."""

    kind: Literal["alive"] = "alive"


@dataclass(frozen=True, slots=True)
class Hello:
    worker: str
    protocol: int = PROTOCOL
    kind: Literal["hello"] = "hello"


@dataclass(frozen=True, slots=True)
class Resync:
    kind: Literal["resync"] = "resync"


@dataclass(frozen=True, slots=True)
class ProbeDone:
    id: int
    probe: Probe
    kind: Literal["probe_done"] = "probe_done"


@dataclass(frozen=True, slots=True)
class DrainDone:
    id: int
    idle: bool
    kind: Literal["drain_done"] = "drain_done"


@dataclass(frozen=True, slots=True)
class Seen:
    peer: PeerSeen
    kind: Literal["seen"] = "seen"


@dataclass(frozen=True, slots=True)
class Wake:
    """Requests are held for the agent; or only a poll, the last one of which came so long ago."""

    agent_id: str
    poll_gap_seconds: float | None = None
    kind: Literal["wake"] = "wake"


@dataclass(frozen=True, slots=True)
class Used:
    """The agents for which the worker did something that matters since it last said so, or is doing it still."""

    agents: tuple[str, ...]
    kind: Literal["used"] = "used"


@dataclass(frozen=True, slots=True)
class AskRedeem:
    """Consume a ticket for this agent: for a session, or for the one connection that it came with."""

    id: int
    ticket_sha256: str
    agent_id: str
    session: bool
    kind: Literal["ask_redeem"] = "ask_redeem"


@dataclass(frozen=True, slots=True)
class Redeemed:
    """What the ticket gave, or why it gave nothing: a sentence and its code."""

    id: int
    redemption: Redemption | None = None
    error: str = ""
    code: str = ""
    kind: Literal["redeemed"] = "redeemed"


@dataclass(frozen=True, slots=True)
class EndSession:
    """The browser that holds it logs out."""

    session_sha256: str
    kind: Literal["end_session"] = "end_session"


@dataclass(frozen=True, slots=True)
class SeekKeys:
    """A JWT names a key of this trusted issuer that is not in the table: it may be a new one."""

    issuer: str
    kind: Literal["seek_keys"] = "seek_keys"


@dataclass(frozen=True, slots=True)
class Goodbye:
    """The worker is drained and leaves: its silence is no veto."""

    kind: Literal["goodbye"] = "goodbye"


Down = Table | Changed | AskProbe | AskDrain | Redeemed | RefuseWake | Heartbeat | Alive
Up = (
    Hello
    | Resync
    | ProbeDone
    | DrainDone
    | AskRedeem
    | EndSession
    | SeekKeys
    | Seen
    | Wake
    | Used
    | Goodbye
    | Heartbeat
)

_DOWN: TypeAdapter[Down] = TypeAdapter(Annotated[Down, Field(discriminator="kind")])
_UP: TypeAdapter[Up] = TypeAdapter(Annotated[Up, Field(discriminator="kind")])
_SNAPSHOT: TypeAdapter[Snapshot] = TypeAdapter(Snapshot)


def encode(message: Down | Up | Snapshot) -> bytes:
    """One line, with its newline."""
    return json.dumps(message, default=_plain, separators=(",", ":")).encode() + b"\n"


def decode_down(line: bytes) -> Down:
    """Raises Invalid when the line is not a message that a control plane sends."""
    return _decode(_DOWN, line)


def decode_up(line: bytes) -> Up:
    """Raises Invalid when the line is not a message that a worker sends."""
    return _decode(_UP, line)


def decode_snapshot(line: bytes) -> Snapshot:
    """Raises Invalid when the line is not a snapshot."""
    return _decode(_SNAPSHOT, line)


async def read_line(reader: asyncio.StreamReader, *, within_seconds: float) -> bytes | None:
    """The next line, or None at the end of the stream. Raises Invalid for one over the reader's limit, TimeoutError."""
    async with asyncio.timeout(within_seconds):
        try:
            return await reader.readuntil(b"\n")
        except asyncio.IncompleteReadError:
            return None
        except asyncio.LimitOverrunError as error:
            raise Invalid("cannot read a line of the link: it is longer than the limit") from error


def _decode(adapter: TypeAdapter[T], line: bytes) -> T:
    try:
        return adapter.validate_json(line)
    except ValidationError as error:
        # The input is left out: it may carry secrets.
        places = ", ".join(".".join(map(str, detail["loc"])) or "the line" for detail in error.errors())
        raise Invalid(f"cannot read a message of the link: {places[:200]} is not as expected") from None


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, frozenset):
        return sorted(value)
    return {field.name: getattr(value, field.name) for field in fields(value)}
