"""The format of server-sent events, and following a stream across broken connections."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from elizacloud.client import sse
from elizacloud.client.sse import Decoder, ServerSentEvent, follow
from elizacloud.client.transport import UNREACHABLE
from elizacloud.errors import Forbidden, Unavailable
from tests.virtual_time import pass_seconds

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

    def __init__(self, *scripts: bytes | Exception | int, lasting_seconds: float = 0) -> None:
        self.scripts = list(scripts)
        self.lasting_seconds = lasting_seconds
        self.last_ids: list[str | None] = []

    @asynccontextmanager
    async def open(self, last_id: str | None) -> AsyncIterator[Any]:
        self.last_ids.append(last_id)
        script = self.scripts.pop(0)
        if isinstance(script, Exception):
            raise script
        if isinstance(script, int):
            yield _Answer(script, b"", 0)
        else:
            yield _Answer(200, script, self.lasting_seconds)


class _Answer:
    def __init__(self, status: int, body: bytes, lasting_seconds: float) -> None:
        self.status = status
        self.content = self
        self._body = body
        self._lasting_seconds = lasting_seconds

    async def iter_any(self) -> AsyncIterator[bytes]:
        yield self._body
        if self._lasting_seconds:
            await pass_seconds(self._lasting_seconds)


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


@pytest.mark.looptime
async def test_a_stream_on_which_nothing_happens_is_followed_however_often_it_breaks() -> None:
    streams = Streams(*[b": still here\n\n"] * 30, b"data: at last\n\n", 204, lasting_seconds=60)
    assert [event.data async for event in follow(streams.open)] == ["at last"]


@pytest.mark.looptime
async def test_a_server_that_says_hello_and_ends_the_stream_is_given_up() -> None:
    with pytest.raises(Unavailable, match="ends the stream at once"):
        [event async for event in follow(Streams(*[b": hello\n\n"] * 20, lasting_seconds=1).open)]
