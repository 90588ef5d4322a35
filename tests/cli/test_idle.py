"""`elizacloud agent idle` and `agent pause`."""

import json

import pytest

from elizacloud.cli.idle import policy, seconds
from elizacloud.errors import Invalid
from tests.cli.conftest import Cli
from tests.fakes.api import FakeApi

HOURS = "mon-fri 08:00-18:00"


def test_what_one_agent_says_is_added_to_what_it_said(cli: Cli, api: FakeApi) -> None:
    agent_id = api.add(idlePolicy={"stopAfterSeconds": 0})
    result = cli("agent", "idle", agent_id, "--idle-after", "15m", "--awake", HOURS, "--timezone", "Europe/Berlin")
    assert result.exit_code == 0
    said = {
        "stopAfterSeconds": 0,
        "idleAfterSeconds": 900,
        "schedule": {"timezone": "Europe/Berlin", "awake": [HOURS]},
    }
    assert api.sent[-1].body == {"idlePolicy": said}
    assert "900 s" in result.stdout
    assert f"{HOURS} (Europe/Berlin)" in result.stdout
    assert json.loads(cli("agent", "idle", agent_id, "--json").stdout) == said


def test_inherit_forgets_what_was_said(cli: Cli, api: FakeApi) -> None:
    agent_id = api.add(idlePolicy={"idleAfterSeconds": 60, "stopAfterSeconds": 0})
    assert cli("agent", "idle", agent_id, "--inherit", "--idle-after", "never").exit_code == 0
    assert api.sent[-1].body == {"idlePolicy": {"idleAfterSeconds": "never"}}
    assert cli("agent", "idle", agent_id, "--inherit").exit_code == 0
    assert api.sent[-1].body == {"idlePolicy": None}


def test_without_an_agent_it_is_the_owners(cli: Cli, api: FakeApi) -> None:
    assert "as below" in cli("agent", "idle").stdout
    assert cli("agent", "idle", "--idle-after", "2h", "--stop-after", "never").exit_code == 0
    assert api.idle_policy == {"idleAfterSeconds": 7200, "stopAfterSeconds": "never"}


def test_create_takes_a_policy(cli: Cli, api: FakeApi) -> None:
    assert cli("agent", "create", "ada", "--no-wait", "--idle-after", "90s", "--stop-after", "0").exit_code == 0
    assert api.sent[-1].body["idlePolicy"] == {"idleAfterSeconds": 90, "stopAfterSeconds": 0}


@pytest.mark.parametrize("word", ["pause", "sleep"])
def test_rest_now(cli: Cli, api: FakeApi, word: str) -> None:
    agent_id = api.add()
    result = cli("agent", word, agent_id, "--no-wait")
    assert (result.exit_code, api.sent[-1].path) == (0, f"/api/v1/agents/{agent_id}/{word}")


@pytest.mark.parametrize("text", ["", "x", "-1", "1w", "1h30m", "never ever", "1e9"])
def test_a_duration_that_cannot_be_read(text: str) -> None:
    with pytest.raises(Invalid, match="write it as"):
        seconds(text, "--idle-after")


def test_nothing_said_is_nothing() -> None:
    assert policy(None, None) == {}
    assert policy(None, None, ["never"]) == {"schedule": "never"}
