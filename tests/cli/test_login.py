"""`elizacloud login` and the context file."""

import json
import stat
from pathlib import Path

import pytest

from elizacloud.cli import login as module
from tests.cli.conftest import Cli
from tests.fakes.api import TOKEN, FakeApi


def context(home: Path) -> Path:
    return home / "config" / "elizacloud" / "context.json"


def test_a_token_from_standard_input_is_kept_for_this_user_only(api: FakeApi, stranger: Cli, home: Path) -> None:
    result = stranger("login", api.url, "--token-stdin", stdin=f"{TOKEN}\n")
    assert result.exit_code == 0
    assert TOKEN not in result.output
    assert json.loads(context(home).read_text()) == {"url": api.url, "token": TOKEN}
    assert stat.S_IMODE(context(home).stat().st_mode) == 0o600
    assert stat.S_IMODE(context(home).parent.stat().st_mode) == 0o700
    assert stranger("agent", "list").exit_code == 0
    assert stranger("logout").stdout == "Signed out\n"
    assert stranger("agent", "list").exit_code == 4


def test_a_token_from_the_environment_or_a_prompt(api: FakeApi, stranger: Cli, home: Path) -> None:
    assert stranger("login", api.url, ELIZACLOUD_TOKEN=TOKEN).exit_code == 0
    context(home).unlink()
    assert stranger("login", api.url, "--no-browser", stdin=f"{TOKEN}\n").exit_code == 0
    assert context(home).exists()


def test_a_wrong_token_is_told_and_not_kept(api: FakeApi, stranger: Cli, home: Path) -> None:
    for wrong in ("wrong", "", "two words\x07", "ünknown"):
        result = stranger("login", api.url, "--token-stdin", stdin=f"{wrong}\n")
        assert result.exit_code in (1, 4), wrong
        assert "cannot" in result.stderr
    assert not context(home).exists()


def test_a_browser_approves_the_login(api: FakeApi, stranger: Cli, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0)
    api.polls_until_approved = 3
    result = stranger("login", api.url)
    assert result.exit_code == 0
    assert f"{api.url}/login?code=ABCD-EFGH" in result.stderr
    assert "with the code ABCD-EFGH" in result.stderr
    assert "cs_secret" not in result.output
    assert json.loads(context(home).read_text())["token"] == TOKEN


def test_a_login_that_nobody_approves_ends(api: FakeApi, stranger: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_SECONDS", 0)
    monkeypatch.setattr(module, "APPROVAL_SECONDS", 0.05)
    api.polls_until_approved = 10**9
    assert stranger("login", api.url).exit_code == 6


@pytest.mark.parametrize("url", ["http://example.com", "ftp://x", "nonsense", "http://user:pw@127.0.0.1"])
def test_a_server_to_which_a_token_must_not_go(stranger: Cli, url: str) -> None:
    result = stranger("login", url, "--token-stdin", stdin=f"{TOKEN}\n")
    assert result.exit_code == 1
    assert "https" in result.stderr


def test_a_saved_token_is_not_shown_to_another_server(api: FakeApi, stranger: Cli) -> None:
    stranger("login", api.url, "--token-stdin", stdin=f"{TOKEN}\n")
    api.sent.clear()
    result = stranger("agent", "list", ELIZACLOUD_URL="http://127.0.0.1:1")
    assert result.exit_code == 4


def test_a_damaged_context_file_is_a_sentence(stranger: Cli, home: Path) -> None:
    context(home).parent.mkdir(parents=True)
    for content in ("", "{", "[]", '{"url": 1}'):
        context(home).write_text(content)
        result = stranger("agent", "list")
        assert result.exit_code == 1
        assert "elizacloud login" in result.stderr
