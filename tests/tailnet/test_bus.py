"""Cutting a stream into events, and what an event says."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elizacloud.errors import TailnetUnavailable
from elizacloud.tailnet.bus import WATCH_NETMAP, EventDecoder, State, login_error_of, state_of


@given(st.lists(st.dictionaries(st.text(), st.integers(), max_size=3), max_size=5), st.integers(1, 7))
def test_events_are_the_same_however_the_stream_is_cut(events: list[dict[str, int]], size: int) -> None:
    stream = b"".join(json.dumps(event).encode() + b"\n" for event in events)
    decoder = EventDecoder()

    decoded = [event for at in range(0, len(stream), size) for event in decoder.feed(stream[at : at + size])]

    assert decoded == events


def test_an_event_may_be_as_large_as_a_tailnet() -> None:
    line = json.dumps({"PeersChanged": [{"ID": number, "Name": "x" * 1000} for number in range(2000)]}).encode()
    decoder = EventDecoder()

    assert decoder.feed(line) == []
    (event,) = decoder.feed(b"\n")

    assert len(event["PeersChanged"]) == 2000


@pytest.mark.parametrize("line", [b"no json\n", b"[1]\n", b"\xff\n", b'{"State":\n'])
def test_what_is_no_event_ends_the_stream(line: bytes) -> None:
    with pytest.raises(TailnetUnavailable):
        EventDecoder().feed(line)


def test_an_event_without_end_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(EventDecoder, "LIMIT_BYTES", 10)

    with pytest.raises(TailnetUnavailable):
        EventDecoder().feed(b"x" * 11)


def test_the_state_is_one_that_we_know_or_none() -> None:
    assert state_of({"State": 6}) is State.RUNNING
    assert state_of({"State": 99}) is None
    assert state_of({"State": None}) is None
    assert state_of({}) is None


def test_a_refused_login_is_found_in_an_error_and_in_a_health_warning() -> None:
    warning = {"Health": {"Warnings": {"login-state": {"Args": {"error": "register request: http 500: down"}}}}}

    assert login_error_of({"ErrMessage": "authkey expired"}) == "authkey expired"
    assert login_error_of(warning) == "register request: http 500: down"
    assert login_error_of({"Health": {"Warnings": {"login-state": {"Args": {"error": ""}}}}}) is None
    assert login_error_of({"Health": None}) is None


def test_the_netmap_is_watched_with_the_bits_that_were_measured() -> None:
    assert int(WATCH_NETMAP) == 53250
