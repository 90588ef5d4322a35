"""`elizacloud agent ...`."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.fakes.api import FakeApi, problem


def test_create_shows_each_transition_and_then_the_agent(cli: Cli, api: FakeApi) -> None:
    result = cli("agent", "create", "ada")
    assert result.exit_code == 0
    lines = result.stderr.splitlines()
    assert [line.split()[2] for line in lines] == ["requested", *["requested", "keyed", "started", "joined"]]
    assert "joined -> ready" in lines[-1]
    assert "step to ready in 0.10 s" in lines[-1]
    assert lines[0].startswith("   0.00 s")
    assert lines[-1].startswith("   0.40 s")
    assert "status:            ready" in result.stdout
    assert "address:           100.64.0.7" in result.stdout


def test_create_as_json_prints_the_agent_alone(cli: Cli, api: FakeApi) -> None:
    result = cli("agent", "create", "ada", "--json")
    agent = json.loads(result.stdout)
    assert (agent["agentName"], agent["status"], agent["headscaleIp"]) == ("ada", "ready", "100.64.0.7")
    assert result.stderr == ""


def test_create_sends_what_was_asked_for(cli: Cli, api: FakeApi, home: Path) -> None:
    (home / "config.json").write_text('{"theme": "dark"}')
    (home / "key").write_text("s3cret\n")
    result = cli(
        *("agent", "create", "ada", "--no-wait", "--key", "once", "--owner", "alice", "--image", "i:1"),
        *("--config", str(home / "config.json"), "--env", "A=b=c", "--env", "D=", "--secret", f"K=file:{home / 'key'}"),
    )
    assert result.exit_code == 0
    [sent] = api.sent
    assert sent.body == {
        "agentName": "ada",
        "agentConfig": {"theme": "dark"},
        "environment": {"A": "b=c", "D": ""},
        "secrets": {"K": "s3cret"},
        "image": "i:1",
    }
    assert (sent.headers["Idempotency-Key"], sent.headers["Elizacloud-Owner"]) == ("once", "alice")
    assert sent.query == {"wait": "0"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--secret", "K=s3cret"], "cannot take a secret from the command line"),
        (["--secret", "K=file:/nowhere"], "cannot read the secret K"),
        (["--env", "novalue"], "write it as NAME=value"),
        (["--config", "/nowhere"], "cannot read the config"),
        (["--config", "/proc/self/cmdline"], "cannot read the config"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_sent(cli: Cli, api: FakeApi, arguments: list[str], says: str) -> None:
    result = cli("agent", "create", "ada", *arguments)
    assert (result.exit_code, api.sent) == (1, [])
    assert says in result.stderr
    assert "s3cret" not in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_create_that_does_not_get_ready_says_why_and_times_out(cli: Cli, api: FakeApi) -> None:
    api.to_come = ["keyed", "started"]
    result = cli("agent", "create", "ada", "--timeout", "0.3")
    assert result.exit_code == 6
    assert "it is started after 0.3 s" in result.stderr.splitlines()[-1]


def test_external_prints_what_starts_it_by_hand(cli: Cli, api: FakeApi) -> None:
    api.environment = {"HEADSCALE_URL": "http://10.0.0.1:8080", "HEADSCALE_AUTH_KEY": "key one's", "CONTAINER_ID": "b"}
    result = cli("agent", "create", "ada", "--external")
    assert result.exit_code == 0
    assert "export HEADSCALE_AUTH_KEY='key one'\"'\"'s'\n" in result.stdout
    command = result.stdout[result.stdout.index("docker run") :]
    assert "-e HEADSCALE_AUTH_KEY \\\n" in command
    assert "key one" not in command  # argv is seen by every process
    assert api.sent[0].body == {"agentName": "ada", "external": True}
    shown = json.loads(cli("agent", "create", "eve", "--external", "--json").stdout)
    assert shown["environment"] == api.environment


def test_external_without_an_environment_is_an_error(cli: Cli, api: FakeApi) -> None:
    result = cli("agent", "create", "ada", "--external")
    assert result.exit_code == 5
    assert "asks for a new one" in result.stderr


def test_restart_of_an_external_one_prints_its_new_environment(cli: Cli, api: FakeApi) -> None:
    api.environment = {"HEADSCALE_AUTH_KEY": "new"}
    agent_id = api.add("started", external=True)
    assert "export HEADSCALE_AUTH_KEY=new\n" in cli("agent", "restart", agent_id).stdout
    assert "export HEADSCALE_AUTH_KEY=new\n" in cli("agent", "start", agent_id).stdout


def test_list_is_tab_separated_when_nobody_watches(cli: Cli, api: FakeApi) -> None:
    assert cli("agent", "list").stdout == ""
    ids = [api.add("ready"), api.add("stopped"), api.add("ready", agentName="bell\a\x1b[31m")]
    rows = [line.split("\t") for line in cli("agent", "list").stdout.splitlines()]
    assert [row[:4] for row in rows[:2]] == [[ids[0], "ada", "ready", "100.64.0.7"], [ids[1], "ada", "stopped", ""]]
    assert rows[2][1] == "bell  [31m"
    assert [agent["agentId"] for agent in json.loads(cli("agent", "list", "--json").stdout)] == ids


def test_show_and_what_is_not_there(cli: Cli, api: FakeApi) -> None:
    assert "message:           all is well" in cli("agent", "show", api.add(message="all is well")).stdout
    missing = cli("agent", "show", "nobody")
    assert (missing.exit_code, missing.stderr) == (3, "elizacloud: cannot find an agent nobody\n")
    told = json.loads(cli("agent", "show", "nobody", "--json").stderr)
    assert (told["code"], told["status"]) == ("agent_not_found", 404)


def test_stop_start_and_restart_wait_until_it_is_so(cli: Cli, api: FakeApi) -> None:
    agent_id = api.add("ready")
    api.to_come = ["stopped"]
    assert "stopped" in cli("agent", "stop", agent_id).stdout
    api.to_come = ["started", "joined", "ready"]
    started = cli("agent", "start", agent_id)
    assert "status:            ready" in started.stdout
    assert [line.split()[4] for line in started.stderr.splitlines()] == ["started", "joined", "ready"]
    api.to_come = ["stopped", "started", "joined", "ready"]
    restarted = cli("agent", "restart", agent_id)
    assert [line.split()[4] for line in restarted.stderr.splitlines()] == [
        *("stopping", "stopped", "started", "joined", "ready")
    ]


def test_delete_waits_until_it_is_gone(cli: Cli, api: FakeApi) -> None:
    agent_id = api.add("ready")
    api.to_come = ["tombstone"]
    result = cli("agent", "delete", agent_id)
    assert (result.exit_code, result.stdout) == (0, f"{agent_id} is deleted\n")
    assert json.loads(cli("agent", "delete", agent_id, "--no-wait", "--json").stdout)["deleted"] is True
    assert cli("agent", "delete", "nobody").exit_code == 3


def test_events_are_a_line_each(cli: Cli, api: FakeApi) -> None:
    agent_id = api.add("joined")
    api.move(agent_id, "ready")
    api.events[-1]["reason"] = "a relay\ngot an answer"
    lines = cli("agent", "events", agent_id).stdout.splitlines()
    assert lines[1].startswith("2026-01-02 03:04:05  joined -> ready")
    assert lines[1].endswith("step to ready in 0.10 s: a relay got an answer")
    events = [json.loads(line) for line in cli("agent", "events", agent_id, "--json").stdout.splitlines()]
    assert [event["stateTo"] for event in events] == ["joined", "ready"]


def test_logs(cli: Cli, api: FakeApi) -> None:
    agent_id = api.add()
    assert cli("agent", "logs", agent_id, "--tail", "2").stdout == "two\nthree\n"
    assert cli("agent", "logs", agent_id, "--tail", "1", "--json").stdout == '{"line": "three"}\n'


@pytest.mark.parametrize(
    ("status", "code", "exit_code"),
    [
        (401, "invalid_token", 4),
        (403, "scope", 4),
        (409, "name_taken", 1),
        (422, "invalid_name", 1),
        (429, "too_many", 1),
        (502, "runtime_refused", 1),
        (503, "store_unavailable", 5),
    ],
)
def test_exit_codes_tell_the_kinds_of_failure_apart(
    cli: Cli, api: FakeApi, status: int, code: str, exit_code: int
) -> None:
    api.fail_next = [problem(status, code, "cannot do that: because")]
    result = cli("agent", "list")
    assert (result.exit_code, result.stdout, result.stderr) == (exit_code, "", "elizacloud: cannot do that: because\n")


def test_without_server_or_token_it_says_what_to_do(stranger: Cli) -> None:
    no_token = stranger("agent", "list")
    assert no_token.exit_code == 4
    assert "elizacloud login" in no_token.stderr
    no_server = stranger("agent", "list", ELIZACLOUD_URL="http://127.0.0.1:1", ELIZACLOUD_TOKEN="x")
    assert no_server.exit_code == 5
    assert "elizacloud up" in no_server.stderr
    assert stranger("agent", "list", "--nonsense").exit_code == 2


def test_events_are_followed_across_a_broken_connection_and_taken_up_where_one_was(cli: Cli, api: FakeApi) -> None:
    agent_id = api.add("joined")
    api.to_come, api.cut_after_events = ["ready", "deleting", "tombstone", "gone"], 2
    shown = cli("agent", "events", agent_id, "--follow", "--json").stdout
    events = [json.loads(line) for line in shown.splitlines()]
    assert [event["stateTo"] for event in events] == ["joined", "ready", "deleting", "tombstone", "gone"]
    for options in ([], ["--follow"]):
        shown = cli("agent", "events", agent_id, "--json", "--after", str(events[2]["sequence"]), *options).stdout
        assert [json.loads(line) for line in shown.splitlines()] == events[3:]
