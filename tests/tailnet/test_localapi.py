"""The client of the LocalAPI: what is asked, and what each kind of trouble becomes."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
from pydantic import SecretStr

from elizacloud.errors import Refused, TailnetUnavailable
from elizacloud.tailnet import LocalApi
from elizacloud.tailnet.bus import WATCH_LOGIN
from elizacloud.tailnet.localapi import Status
from tests.tailnet.local_api import END_OF_STREAM, FakeLocalApi, serving


async def test_the_status_of_this_machine(fake: FakeLocalApi, api: LocalApi) -> None:
    fake.status |= {"Health": ["warming up"]}

    assert await api.status() == Status("Running", True, "9", ("100.64.0.9",), ("warming up",))
    assert fake.paths() == ["status?peers=false"]


async def test_the_status_before_a_login(fake: FakeLocalApi, api: LocalApi) -> None:
    fake.status = {"BackendState": "NeedsLogin", "Self": None, "TailscaleIPs": None, "Health": None}

    assert await api.status() == Status("NeedsLogin", False, "", (), ())


async def test_a_start_carries_the_key_in_its_body_only(fake: FakeLocalApi, api: LocalApi) -> None:
    await api.start(prefs={"Hostname": "h"}, auth_key=SecretStr("the-key"))
    await api.start(prefs={"Hostname": "h"}, auth_key=None)

    assert fake.asked == [
        ("POST", "start", {"UpdatePrefs": {"Hostname": "h"}, "AuthKey": "the-key"}),
        ("POST", "start", {"UpdatePrefs": {"Hostname": "h"}}),
    ]


async def test_what_is_served_replaces_what_was(fake: FakeLocalApi, api: LocalApi) -> None:
    await api.set_serve(2138, "unix:/run/agent.sock")

    assert fake.asked == [("POST", "serve-config", {"TCP": {"2138": {"TCPForward": "unix:/run/agent.sock"}}})]


@pytest.mark.parametrize(
    ("status", "error"), [(500, TailnetUnavailable), (503, TailnetUnavailable), (400, Refused), (403, Refused)]
)
async def test_what_tailscaled_says_is_passed_on(
    fake: FakeLocalApi, api: LocalApi, status: int, error: type[Exception]
) -> None:
    fake.answers["serve-config"] = (status, "netMap is nil")

    with pytest.raises(error, match="netMap is nil"):
        await api.set_serve(2138, "127.0.0.1:1")


@pytest.mark.parametrize("body", ["no json", "[]", ""])
async def test_an_answer_that_is_none(fake: FakeLocalApi, api: LocalApi, body: str) -> None:
    fake.answers["status"] = (200, body)

    with pytest.raises(TailnetUnavailable):
        await api.status()


async def test_an_error_never_quotes_the_key(fake: FakeLocalApi, api: LocalApi) -> None:
    fake.answers["start"] = (500, "no")

    with pytest.raises(TailnetUnavailable) as failed:
        await api.start(prefs={}, auth_key=SecretStr("the-key"))

    assert "the-key" not in f"{failed.value!r}{failed.value.__cause__!r}"


async def test_without_tailscaled_everything_is_unavailable(short_dir: Path) -> None:
    api = LocalApi(short_dir / "none.sock")
    try:
        with pytest.raises(TailnetUnavailable, match="is it running"):
            await api.status()
        with pytest.raises(TailnetUnavailable):
            async with aclosing(api.watch(WATCH_LOGIN)) as events:
                await anext(events)
    finally:
        await api.close()


async def test_a_ping_that_is_not_answered(fake: FakeLocalApi, api: LocalApi) -> None:
    fake.answers["ping"] = (200, '{"Err": "timeout"}')
    with pytest.raises(TailnetUnavailable, match="timeout"):
        await api.ping("100.64.0.2")

    fake.answers["ping"] = (200, '{"LatencySeconds": 0.01, "NodeIP": "100.64.0.2"}')
    assert await api.ping("100.64.0.2") == 0.01


async def test_the_bus_is_followed_until_tailscaled_ends_it(fake: FakeLocalApi, api: LocalApi) -> None:
    fake.first = [{"State": 2}, {"State": 6}, END_OF_STREAM]

    async with aclosing(api.watch(WATCH_LOGIN)) as events:
        assert [event async for event in events] == [{"State": 2}, {"State": 6}]

    assert fake.paths() == ["watch-ipn-bus?mask=130"]


async def test_waiting_for_the_socket_ends_when_it_is_there(short_dir: Path) -> None:
    api = LocalApi(short_dir / "t.sock")
    waiting = asyncio.create_task(api.until_listening())
    await asyncio.sleep(0)
    assert not waiting.done()

    async with serving(FakeLocalApi(), short_dir / "t.sock"), asyncio.timeout(20):
        await waiting


async def test_closing_twice_is_harmless(fake: FakeLocalApi, api: LocalApi) -> None:
    await api.status()
    await api.close()
    await api.close()
