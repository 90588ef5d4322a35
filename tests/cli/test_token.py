"""`elizacloud token ...`."""

import json

from tests.cli.conftest import Cli
from tests.fakes.api import FakeApi


def test_create_prints_the_value_alone_on_standard_output(cli: Cli, api: FakeApi) -> None:
    result = cli("token", "create", "ci", "--days", "2")
    assert result.stdout == "ec_t0_secret\n"
    assert api.sent[0].body == {"name": "ci", "expiresInSeconds": 172800.0}
    assert json.loads(cli("token", "create", "ci", "--json").stdout)["token"] == "ec_t1_secret"


def test_a_token_for_one_agent(cli: Cli, api: FakeApi) -> None:
    agent_id = api.add()
    cli("token", "create", "ci", "--agent", agent_id)
    assert api.sent[0].path == f"/api/v1/agents/{agent_id}/tokens"


def test_list_never_shows_a_value(cli: Cli, api: FakeApi) -> None:
    for _ in range(3):
        cli("token", "create", "ci")
    listed = cli("token", "list").stdout
    assert [line.split("\t")[0] for line in listed.splitlines()] == ["t0", "t1", "t2"]
    assert "secret" not in listed + cli("token", "list", "--json").stdout


def test_revoke(cli: Cli, api: FakeApi) -> None:
    cli("token", "create", "ci")
    assert cli("token", "revoke", "t0").stdout == "t0 is revoked\n"
    assert cli("token", "revoke", "t0").exit_code == 3


def test_a_jwt_has_minutes_and_no_name(cli: Cli, api: FakeApi) -> None:
    agent_id = api.add()
    assert cli("token", "create", "--jwt", "--minutes", "5", "--agent", agent_id).exit_code == 0
    assert (api.sent[0].path, api.sent[0].body) == (
        f"/api/v1/agents/{agent_id}/tokens",
        {"kind": "jwt", "expiresInSeconds": 300.0},
    )
    cli("token", "create", "--jwt", "--json")
    assert (api.sent[1].path, api.sent[1].body) == ("/api/v1/tokens", {"kind": "jwt"})


def test_options_that_do_not_fit_are_refused(cli: Cli, api: FakeApi) -> None:
    for wrong in (["ci", "--jwt"], ["--jwt", "--days", "1"], ["ci", "--minutes", "5"], []):
        assert cli("token", "create", *wrong).exit_code == 1
    assert api.sent == []


def test_an_agents_token_needs_no_name(cli: Cli, api: FakeApi) -> None:
    agent_id = api.add()
    assert cli("token", "create", "--agent", agent_id).exit_code == 0
    assert api.sent[0].body == {}
