"""The control plane, the token and the join address."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from elizacloud.cli.checks.check import run_checks
from elizacloud.cli.checks.control import control_checks, join_reach
from elizacloud.cli.checks.facts import Facts, Running
from elizacloud.cli.context import Context
from elizacloud.headscale.preflight import Finding, Verdict
from elizacloud.settings import Settings
from tests.fakes.api import TOKEN, FakeApi


async def findings_of(
    url: str, token: str | None, *, tmp_path: Path, running: bool = False, **settings: object
) -> dict[str, Finding]:
    facts = Facts(
        Settings(data_dir=tmp_path, **settings),  # type: ignore[arg-type]
        Running(url, 1, "http://127.0.0.1:1", "headscale", "0.29.2") if running else None,
        Context(url, None if token is None else SecretStr(token), "a test"),
    )
    return {finding.check: finding for finding in await run_checks(control_checks(facts))}


async def test_all_is_well(tmp_path: Path) -> None:
    async with FakeApi().running() as api:
        found = await findings_of(api.url, TOKEN, tmp_path=tmp_path)
    assert {name: finding.verdict for name, finding in found.items()} == {
        "control plane": Verdict.OK,
        "token": Verdict.OK,
    }


async def test_a_control_plane_that_is_not_ready_and_a_token_that_is_not_known(tmp_path: Path) -> None:
    async with FakeApi(is_ready=False).running() as api:
        found = await findings_of(api.url, "wrong", tmp_path=tmp_path)
    assert found["control plane"].verdict is Verdict.FAIL
    assert "Headscale does not answer" in found["control plane"].cause
    assert found["token"].verdict is Verdict.FAIL
    assert "elizacloud login" in found["token"].fix


async def test_nothing_running_is_a_failure_only_when_up_says_that_it_runs(tmp_path: Path) -> None:
    found = await findings_of("http://127.0.0.1:1", None, tmp_path=tmp_path)
    assert found["control plane"].verdict is Verdict.WARN
    assert "elizacloud up" in found["control plane"].fix
    assert found["token"].verdict is Verdict.WARN
    found = await findings_of("http://127.0.0.1:1", None, tmp_path=tmp_path, running=True, headscale_api_key="k")
    assert found["control plane"].verdict is Verdict.FAIL
    assert str(tmp_path / "logs") in found["control plane"].fix


async def test_a_headscale_that_does_not_answer_or_has_no_key(tmp_path: Path) -> None:
    found = await findings_of("http://127.0.0.1:1", None, tmp_path=tmp_path, running=True)
    assert found["headscale API key"].verdict is Verdict.FAIL
    assert "headscale apikeys create" in found["headscale API key"].fix
    found = await findings_of("http://127.0.0.1:1", None, tmp_path=tmp_path, running=True, headscale_api_key="k")
    assert found["headscale reachable"].verdict is Verdict.FAIL


@pytest.mark.parametrize(
    ("url", "verdict", "says"),
    [
        ("http://127.0.0.1:8080", Verdict.OK, "those in containers or elsewhere cannot"),
        ("http://localhost:8080", Verdict.OK, "those in containers or elsewhere cannot"),
        ("http://10.0.0.5:8080", Verdict.OK, "must be reachable from where they run"),
        ("https://headscale.example.com", Verdict.OK, "must be reachable from where they run"),
        ("http://headscale:8080", Verdict.FAIL, "never come back after a restart of Headscale"),
    ],
)
def test_from_where_agents_can_join(url: str, verdict: Verdict, says: str) -> None:
    finding = join_reach(url)
    assert finding.verdict is verdict
    assert says in finding.cause
