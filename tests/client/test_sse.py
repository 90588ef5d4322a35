"""The format of server-sent events, and following a stream across broken connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from elizacloud.client import sse
from elizacloud.client.sse import Decoder, ServerSentEvent, follow
from elizacloud.client.transport import UNREACHABLE
from elizacloud.errors import Forbidden, Unavailable

STREAM = (
    b": comment\r\n"
    b"retry: 1500\r\n"
    b"id: 7\r\nevent: transition\r\ndata: one\r\ndata:two\r\n\r\n"
    b"data\n\n"
    b"event: nothing\n\n"
    b"id\ndata: \xc3\xa9\r\r"
    b"data: not ended"
)
EVENTS = [
    ServerSentEvent("one\ntwo", "transition", "7"),
    ServerSentEvent("", "message", "7"),
    ServerSentEvent("é", "message", ""),
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_the_bytes_come(size: int) -> None:
    decoder = Decoder()
    parts = [STREAM[start : start + size] for start in range(0, len(STREAM), size)]
    assert [event for part in parts for event in decoder.feed(part)] == EVENTS
    assert decoder.retry_seconds == 1.5


def test_a_line_without_end_is_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "LINE_LIMIT_BYTES", 10)
    with pytest.raises(ValueError, match="too long"):
        list(Decoder().feed(b"data: 0123456789"))


class Streams:
    """Stands for the server: each opening takes the next script, bytes or an error."""

    def __init__(self, *scripts: bytes | Exception | int) -> None:
        self.scripts = list(scripts)
        self.last_ids: list[str | None] = []

    @asynccontextmanager
    async def open(self, last_id: str | None) -> AsyncIterator[Any]:
        self.last_ids.append(last_id)
        script = self.scripts.pop(0)
        if isinstance(script, Exception):
            raise script
        yield _Answer(204 if isinstance(script, int) else 200, b"" if isinstance(script, int) else script)


class _Answer:
    def __init__(self, status: int, body: bytes) -> None:
        self.status = status
        self.content = self
        self._body = body

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield self._body


LOST = Unavailable("gone", code=UNREACHABLE)


async def test_a_broken_stream_is_opened_again_after_the_last_event() -> None:
    streams = Streams(b"retry: 0\nid: 1\ndata: a\n\ndata: half", LOST, b"id: 2\ndata: b\n\n", 204)
    assert [event.data async for event in follow(streams.open)] == ["a", "b"]
    assert streams.last_ids == [None, "1", "1", "2"]


async def test_it_begins_after_the_event_that_the_caller_knows() -> None:
    streams = Streams(204)
    assert [event async for event in follow(streams.open, last_id="41")] == []
    assert streams.last_ids == ["41"]


async def test_without_again_the_end_of_the_stream_is_the_end() -> None:
    streams = Streams(b"data: a\n\n")
    assert [event.data async for event in follow(streams.open, again=False)] == ["a"]


async def test_an_error_that_asking_again_would_not_help_is_raised() -> None:
    with pytest.raises(Forbidden):
        [event async for event in follow(Streams(Forbidden("no")).open)]


async def test_a_server_that_stays_away_or_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "_FIRST_RETRY_SECONDS", 0)
    monkeypatch.setattr(sse, "_LAST_RETRY_SECONDS", 0)
    with pytest.raises(Unavailable, match="gone"):
        [event async for event in follow(Streams(*[LOST] * 20).open)]
    with pytest.raises(Unavailable, match="ends the stream at once"):
        [event async for event in follow(Streams(*[b""] * 20).open)]
