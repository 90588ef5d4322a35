"""The events of a tailscaled's bus (`watch-ipn-bus`), as plain data. Pure.

An event is one JSON object a line, with any of the fields of ipn.Notify (ipn/backend.go, tailscale v1.102.3); absent or
null means "not changed". Unknown fields are ignored, so a newer tailscaled is survived.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import IntEnum, IntFlag
from typing import Any

from elizacloud.errors import TailnetUnavailable

Event = Mapping[str, Any]


class Watch(IntFlag):
    """What to subscribe to: ipn.NotifyWatchOpt."""

    INITIAL_STATE = 1 << 1
    INITIAL_HEALTH = 1 << 7
    PEER_CHANGES = 1 << 12
    NO_NETMAP = 1 << 13
    INITIAL_STATUS = 1 << 14
    PEER_PATCHES = 1 << 15


WATCH_LOGIN = Watch.INITIAL_STATE | Watch.INITIAL_HEALTH
WATCH_NETMAP = Watch.INITIAL_STATE | Watch.PEER_CHANGES | Watch.INITIAL_STATUS | Watch.PEER_PATCHES


class State(IntEnum):
    """The backend's state: ipn.State."""

    NO_STATE = 0
    IN_USE_OTHER_USER = 1
    NEEDS_LOGIN = 2
    NEEDS_MACHINE_AUTH = 3
    STOPPED = 4
    STARTING = 5
    RUNNING = 6


_KNOWN_STATES = frozenset(State)
HAS_NETMAP = frozenset({State.STARTING, State.RUNNING})


def state_of(event: Event) -> State | None:
    """The new state, or None when the event does not tell of one that we know."""
    value = event.get("State")
    return State(value) if isinstance(value, int) and value in _KNOWN_STATES else None


def login_error_of(event: Event) -> str | None:
    """The text of the last login error, when the event brings one.

    The bus has no event for a refused login unless the server words it as RegisterResponse.Error; an HTTP status becomes
    a health warning only (controlclient/auto.go authRoutine, health/warnings.go LoginStateWarnable).
    """
    if message := event.get("ErrMessage"):
        return str(message)
    warnings = (event.get("Health") or {}).get("Warnings") or {}
    warning = warnings.get("login-state") or {}
    return (warning.get("Args") or {}).get("error") or None


class EventDecoder:
    """Cuts a byte stream into events. A line may be long: about 1.5 KB for each peer."""

    LIMIT_BYTES = 64 * 1024 * 1024

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Event]:
        """The events that `data` completes. Raises TailnetUnavailable when the stream is not what it should be."""
        self._rest += data
        if b"\n" not in data:
            if len(self._rest) > self.LIMIT_BYTES:
                raise TailnetUnavailable("cannot follow tailscaled: an event of its bus has no end; restart it")
            return []
        *lines, rest = self._rest.split(b"\n")
        self._rest = rest
        return [_decoded(bytes(line)) for line in lines if line.strip()]


def _decoded(line: bytes) -> Event:
    try:
        event = json.loads(line)
    except ValueError as error:
        raise TailnetUnavailable(f"cannot follow tailscaled: its bus sent no JSON ({error})") from error
    if not isinstance(event, dict):
        raise TailnetUnavailable("cannot follow tailscaled: its bus sent no JSON object")
    return event
