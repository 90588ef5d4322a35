"""`elizacloud agent open`."""

import json

import pytest
import typer

from tests.cli.conftest import Cli
from tests.fakes.api import FakeApi


def link(agent_id: str) -> str:
    return f"http://{agent_id}.localhost/.elizacloud/session?elizacloud_ticket=ect_secret"


def test_the_link_is_printed_alone(cli: Cli, api: FakeApi) -> None:
    agent_id = api.add()
    assert cli("agent", "open", agent_id).stdout == f"{link(agent_id)}\n"
    assert json.loads(cli("agent", "open", agent_id, "--json").stdout)["url"] == link(agent_id)


def test_a_browser_is_opened_when_asked_for(cli: Cli, api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []

    def launch(url: str) -> int:
        opened.append(url)
        return 0

    monkeypatch.setattr(typer, "launch", launch)
    agent_id = api.add()
    assert cli("agent", "open", agent_id, "--browser").stdout == ""
    assert opened == [link(agent_id)]


def test_an_agent_that_is_not_there(cli: Cli, api: FakeApi) -> None:
    assert cli("agent", "open", "nothing").exit_code == 3
