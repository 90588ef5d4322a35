"""The seed's troubleshooting list, symptom by symptom, and each agent's path through the relay."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from elizacloud.cli.checks.agents import agents_checks, state_finding
from elizacloud.cli.checks.check import run_checks
from elizacloud.cli.checks.control import join_reach
from elizacloud.cli.checks.facts import Facts
from elizacloud.cli.checks.tailnet import status_findings
from elizacloud.cli.context import Context
from elizacloud.client import Agent
from elizacloud.headscale.preflight import Finding, Verdict
from elizacloud.settings import Settings
from elizacloud.tailnet.localapi import Status
from tests.fakes.api import TOKEN, FakeApi, problem

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def agent(status: str, *, minutes: float = 5, message: str = "It waits.") -> Agent:
    updated = NOW - timedelta(minutes=minutes)
    return Agent(agent_id="b1", agent_name="ada", status=status, message=message, updated_at=updated)


async def findings_of(api: FakeApi, tmp_path: Path, token: str | None = TOKEN) -> list[Finding]:
    context = Context(api.url, None if token is None else SecretStr(token), "a test")
    return await run_checks(agents_checks(Facts(Settings(data_dir=tmp_path), None, context)))


# Container can't connect to Headscale: URL reachable, key valid and not expired, network there.


def test_seed_cannot_connect_to_headscale() -> None:
    finding = state_finding(agent("started"), NOW)
    assert finding.verdict is Verdict.FAIL
    assert "no tailnet address after 300 s: It waits." in finding.cause
    assert "join address is reachable" in finding.fix
    assert "a key that was used or has expired is replaced by `elizacloud agent restart b1`" in finding.fix
    assert "those in containers or elsewhere cannot" in join_reach("http://127.0.0.1:8080").cause


# Headscale IP not assigned: tailscaled not running, key invalid or used, see Headscale's log.


def test_seed_address_not_assigned() -> None:
    finding = state_finding(agent("started", message="3 times it failed to await join: exit 78"), NOW)
    assert "exit 78" in finding.cause
    for hint in ("tailscaled runs", "`elizacloud agent logs b1`", "Headscale's log"):
        assert hint in finding.fix


# Can't reach container from frontend: not by its address, through the relay, which must be on the tailnet.


async def test_seed_cannot_reach_from_the_frontend(tmp_path: Path) -> None:
    async with FakeApi().running() as api:
        agent_id = api.add("ready")
        [well] = await findings_of(api, tmp_path)
        api.relay_answer = problem(503, "agent_unroutable", "cannot reach it: the relay has no such peer")
        [broken] = await findings_of(api, tmp_path)
    assert well.verdict is Verdict.OK
    assert f"{api.url}/api/relay/{agent_id}/" in well.cause
    assert broken.verdict is Verdict.FAIL
    assert "no such peer" in broken.cause
    assert "it must be on the tailnet" in broken.fix
    [relay] = status_findings(Status("NeedsLogin", False, "", (), ()))
    assert relay.verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("code", "status", "says"),
    [
        ("agent_refused", 502, "nothing listens on its port"),
        ("agent_timeout", 504, "slow or hangs"),
        ("agent_starting", 503, "try again"),
        ("something_new", 500, "see the findings"),
    ],
)
async def test_each_way_in_which_a_path_can_be_broken_has_a_fix(
    tmp_path: Path, code: str, status: int, says: str
) -> None:
    async with FakeApi().running() as api:
        api.add("ready")
        api.relay_answer = problem(status, code, "cannot")
        [finding] = await findings_of(api, tmp_path)
    assert finding.verdict is Verdict.FAIL
    assert code in finding.cause
    assert says in finding.fix


async def test_one_that_answers_but_is_not_ready(tmp_path: Path) -> None:
    async with FakeApi().running() as api:
        api.add("ready", agentReady=False)
        api.agents["b000000000000000"]["agentReady"] = False
        [finding] = await findings_of(api, tmp_path)
    assert finding.verdict is Verdict.WARN


@pytest.mark.parametrize(
    ("status", "minutes", "verdict", "says"),
    [
        ("requested", 5, Verdict.FAIL, "findings on Headscale and the runtime"),
        ("joined", 5, Verdict.FAIL, "does not answer on its port"),
        ("joined", 0.5, Verdict.WARN, "on its way"),
        ("started", 0.5, Verdict.WARN, "on its way"),
        ("stopped", 500, Verdict.OK, ""),
        ("paused", 500, Verdict.OK, ""),
        ("dreaming", 5, Verdict.WARN, "elizacloud agent events b1"),
    ],
)
def test_what_a_state_says(status: str, minutes: float, verdict: Verdict, says: str) -> None:
    finding = state_finding(agent(status, minutes=minutes), NOW)
    assert finding.verdict is verdict
    assert says in finding.fix


async def test_every_agent_has_a_finding_of_its_own(tmp_path: Path) -> None:
    async with FakeApi().running() as api:
        ids = [api.add(status) for status in ("ready", "stopped", "ready", "joined", "ready")]
        findings = await findings_of(api, tmp_path)
    assert [finding.check for finding in findings] == [f"agent {agent_id}" for agent_id in ids]


async def test_without_agents_or_token_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    async with FakeApi().running() as api:
        assert [finding.cause for finding in await findings_of(api, tmp_path)] == ["there is none yet"]
        assert await findings_of(api, tmp_path, token=None) == []
        assert await findings_of(api, tmp_path, token="wrong") == []
