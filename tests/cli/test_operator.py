"""`elizacloud sweep` and `elizacloud agent explain`."""

import json

import pytest

from tests.cli.conftest import Cli
from tests.fakes.api import FakeApi

ORPHAN = {"kind": "node of no agent", "agentId": "b" * 16, "about": "7", "detail": "", "outcome": "hold"}


def test_a_sweep_tells_what_it_found_and_what_is_held_and_why(cli: Cli, api: FakeApi) -> None:
    api.findings, api.held = [ORPHAN, ORPHAN | {"about": "8", "outcome": "repair"}], "the database is older"
    result = cli("sweep", "--dry-run")
    held, repaired = result.stdout.splitlines()
    assert held.split("\t")[:4] == ["node of no agent", "b" * 16, "7", "held"]
    assert repaired.split("\t")[3] == "would be repaired"
    assert "the database is older" in result.stderr
    assert api.sent[-1].body == {"dryRun": True, "accept": False}
    assert "would" not in cli("sweep").stdout
    assert json.loads(cli("sweep", "--json").stdout)["findings"][0] == ORPHAN


def test_what_is_held_is_accepted_by_a_flag(cli: Cli, api: FakeApi) -> None:
    assert cli("sweep", "--accept").exit_code == 0
    assert api.sent[-1].body == {"dryRun": False, "accept": True}


def test_the_three_truths_stand_side_by_side(cli: Cli, api: FakeApi) -> None:
    agent_id = api.add("joined", message="It joined the tailnet; a relay is waiting for its first live answer.")
    api.explanation = {
        "nextStep": "await ready",
        "store": {
            "generations": [{"number": 1, "keyId": "3", "keyExpired": True, "nodeId": "7", "ipv4": "100.64.0.7"}],
            "run": {"generation": 1, "number": 2, "ref": "r2"},
        },
        "runtime": {
            "hostId": "big",
            "instances": [{"ref": "r2", "phase": "exited", "exitCode": 3, "reason": "agent: exit status 3"}],
            "volumes": [{"generation": 1, "whole": False}],
        },
        "headscale": {"error": "cannot list the nodes: Headscale is down"},
        "answer": {"status": None, "error": "nothing listens on its port"},
        "findings": [{"kind": "instance gone", "about": "r2"}],
        "findingsError": "cannot do this now: no control plane says that it is the one to do it; try again",
    }
    shown = cli("agent", "explain", agent_id).stdout
    rows = [line.split("\t") for line in shown.splitlines() if "\t" in line]
    assert rows == [
        ["node", "7 at 100.64.0.7", "-", "?"],
        ["key", "3, expired", "-", "?"],
        ["instance", "r2 of run 1.2, not ready yet", "r2 exited, exit 3, agent: exit status 3", "-"],
        ["volume", "generation 1", "generation 1, not whole", "-"],
    ]
    for told in (
        "waiting for its first live answer",
        "await ready",
        "big",
        "none to a relay, just now: nothing listens on its port",
        "Headscale is down",
        "instance gone, r2",
        "no control plane says",
    ):
        assert told in shown
    assert json.loads(cli("agent", "explain", agent_id, "--json").stdout)["nextStep"] == "await ready"


def test_what_is_there_more_than_once_has_a_line_each(cli: Cli, api: FakeApi) -> None:
    agent_id = api.add("ready")
    api.explanation = {
        "store": {"generations": [{"number": 1, "nodeId": "7", "ipv4": "100.64.0.7"}]},
        "headscale": {
            "nodes": [
                {
                    "nodeId": "7",
                    "hostname": "h",
                    "ipv4": "100.64.0.7",
                    "keyId": "3",
                    "online": True,
                    "expiresAt": "2999-01-01T00:00:00Z",
                },
                {
                    "nodeId": "8",
                    "hostname": "h",
                    "ipv4": "100.64.0.8",
                    "keyId": "4",
                    "expiresAt": "2026-11-22T15:37:22.66Z",
                },
            ]
        },
    }
    rows = [line.split("\t") for line in cli("agent", "explain", agent_id).stdout.splitlines() if "\t" in line]
    assert rows == [
        ["node", "7 at 100.64.0.7", "-", "7 at 100.64.0.7, h, key 3, online, expires 2999-01-01 00:00:00 UTC"],
        ["node", "-", "-", "8 at 100.64.0.8, h, key 4, offline, expired 2026-11-22 15:37:22 UTC"],
        ["volume", "generation 1", "-", "-"],
    ]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"status": 200, "ready": True}, "200 to a relay, just now, says that it is ready"),
        ({"status": 200, "ready": False}, "200 to a relay, just now, says that it is not ready"),
        ({"status": 503}, "503 to a relay, just now"),
    ],
)
def test_what_it_answers_a_relay_is_told(cli: Cli, api: FakeApi, answer: dict[str, object], told: str) -> None:
    agent_id = api.add("ready")
    api.explanation = {"answer": answer}
    assert f"answer: {told}" in " ".join(cli("agent", "explain", agent_id).stdout.split())


def test_an_agent_that_is_not_there(cli: Cli, api: FakeApi) -> None:
    assert cli("agent", "explain", "nothing").exit_code == 3
