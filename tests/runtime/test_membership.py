"""Joining, publishing and reporting in that order, against a scripted LocalAPI and a scripted control plane."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from elizacloud.runtime.process import membership
from elizacloud.runtime.process.membership import Report, be_member
from elizacloud.tailnet import JoinPrefs, KeyRefused, LocalApi
from tests.tailnet.local_api import FakeLocalApi, serving

PREFS = JoinPrefs("http://127.0.0.1:8080", "milaidy-x")


class ControlPlane:
    """Answers reports with these statuses, one after the other; the last one for ever."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = [*statuses]
        self.reports: list[tuple[str, str, object]] = []
        self.look: Callable[[], bool] = bool
        self.seen: list[bool] = []
        """What `look` said at each report."""

    async def handle(self, request: web.Request) -> web.Response:
        self.seen.append(self.look())
        self.reports.append((request.path, request.headers["Authorization"], await request.json()))
        return web.Response(status=self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0])

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Report]:
        app = web.Application()
        app.router.add_post("/containers/{agent}/networking", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        try:
            yield Report(f"http://127.0.0.1:{port}", "agent-x", SecretStr("join-token"))
        finally:
            await runner.cleanup()


class Member:
    def __init__(self, fake: FakeLocalApi, socket: Path) -> None:
        self.fake = fake
        self.said: list[str] = []
        self.identified = asyncio.Event()
        self._socket = socket

    async def run(self, report: Report | None = None, key: str | None = "k") -> None:
        api = LocalApi(self._socket)
        try:
            async with aiohttp.ClientSession() as http, asyncio.timeout(20):
                await be_member(
                    api,
                    PREFS,
                    SecretStr(key) if key else None,
                    serve_target="unix:/a",
                    report=report,
                    http=http,
                    say=self.said.append,
                    identified=self.identified,
                )
        finally:
            await api.close()


@pytest.fixture
async def member() -> AsyncIterator[Member]:
    fake = FakeLocalApi()
    fake.status["HaveNodeKey"] = False
    fake.first = [{"State": 2}, {"State": 5}, {"State": 6}]
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as directory:
        async with serving(fake, Path(directory) / "t.sock"):
            yield Member(fake, Path(directory) / "t.sock")


async def test_the_port_is_published_before_the_address_is_reported(member: Member) -> None:
    plane = ControlPlane(200)
    plane.look = lambda: "serve-config" in member.fake.paths()
    async with plane.listening() as report:
        await member.run(report)

    assert plane.seen == [True]
    assert plane.reports == [
        ("/containers/agent-x/networking", "Bearer join-token", {"headscaleIp": "100.64.0.9"}),
    ]
    assert "on the tailnet as 100.64.0.9" in member.said[0]


@pytest.mark.parametrize("early", [202, 503, 500, 429])
async def test_a_report_that_came_too_early_is_repeated(member: Member, early: int) -> None:
    plane = ControlPlane(early, early, 200)
    async with plane.listening() as report:
        await member.run(report)

    assert len(plane.reports) == 3


@pytest.mark.parametrize("final", [409, 401, 403, 404])
async def test_a_report_that_is_refused_is_not_repeated_and_is_said(member: Member, final: int) -> None:
    plane = ControlPlane(final)
    async with plane.listening() as report:
        await member.run(report)

    assert len(plane.reports) == 1
    assert f"HTTP status {final}" in member.said[-1]
    assert "join-token" not in "".join(member.said)


async def test_a_control_plane_that_is_down_is_given_up_in_the_end(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "REPORT_FOR_SECONDS", 0.2)

    await member.run(Report("http://127.0.0.1:1", "agent-x", SecretStr("join-token")))

    assert "was not accepted by http://127.0.0.1:1" in member.said[-1]


async def test_without_a_report_url_nothing_is_reported(member: Member) -> None:
    await member.run(None)

    assert "serve-config" in member.fake.paths()


async def test_a_dead_key_ends_it(member: Member) -> None:
    member.fake.first = [{"State": 2}, {"ErrMessage": "authkey expired"}]

    with pytest.raises(ExceptionGroup) as ended:
        await member.run()

    assert ended.group_contains(KeyRefused)


async def test_a_server_that_is_down_is_tried_for_ever_and_said(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(membership, "JOIN_SECONDS", 0.1)
    member.fake.first = [{"State": 2}]
    running = asyncio.create_task(member.run())
    async with asyncio.timeout(10):
        for _ in range(3):
            await member.fake.subscriptions.get()
        member.fake.first = [{"State": 6}]
        await running

    assert "did not answer" in member.said[0]


async def test_a_tailscaled_that_refuses_at_once_is_asked_again_after_growing_pauses(
    member: Member, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = "initMachineKeyLocked: write /x/tailscaled.state.tmp1: no space left on device"
    member.fake.answers["start"] = (500, full)
    pauses: list[int] = []

    class Pauses:
        def delay_seconds(self, tries: int, _chance: float) -> float:
            pauses.append(tries)
            if tries == 3:
                del member.fake.answers["start"]
            return 0.0

    monkeypatch.setattr(membership, "JOIN_BACKOFF", Pauses())

    await member.run()

    assert pauses == [1, 2, 3]
    assert [full in said for said in member.said] == [True, True, True, False]
    assert member.fake.paths().count("login-interactive") == 1


async def test_paths_to_the_relays_are_sought(member: Member) -> None:
    member.fake.status["Peer"] = {"nodekey:r": {"TailscaleIPs": ["100.64.0.1"]}}
    member.fake.answers["ping"] = (200, '{"LatencySeconds": 0.001}')

    await member.run()

    assert "ping?ip=100.64.0.1&type=disco" in member.fake.paths()
