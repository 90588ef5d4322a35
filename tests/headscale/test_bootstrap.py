"""The first key, its keeping and renewal, and a policy that is never silently replaced when it is not ours."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import SecretStr

from elizacloud.errors import HeadscaleRefused, HeadscaleUnavailable, Misconfigured
from elizacloud.headscale.bootstrap import PolicyOutcome, bootstrap, ensure_policy, obtain_api_key
from elizacloud.headscale.policy import default_policy, is_equivalent
from elizacloud.headscale.protocol import Version
from elizacloud.headscale.remembered import load
from elizacloud.headscale.server import SupervisedServer
from tests.fakes.headscale import FakeHeadscale
from tests.headscale.scripted import Scripted
from tests.headscale.support import devcontrol, program, running, supervised

OPEN = {"tagOwners": {}, "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}]}


async def test_a_fresh_server_is_ready_for_joins_and_a_second_time_nothing_changes(home: Path) -> None:
    server = supervised(home, devcontrol())
    async with running(server):
        client = await bootstrap(server)
        version = await client.version()
        assert is_equivalent(await client.get_policy(), default_policy(version.api))
        assert len(await client.list_preauth_keys()) == 0
        await client.close()
        key = (server.directory / "api.key").read_text()
        assert (server.directory / "api.key").stat().st_mode & 0o777 == 0o600
        remembered = load(server.directory)
        assert remembered is not None
        assert remembered.level == version.api
        await (await bootstrap(server)).close()
        assert (server.directory / "api.key").read_text() == key


@pytest.mark.parametrize("damaged", ["", "hskey-api-000000000000-" + "0" * 64, "not\na key", "ключ"])
async def test_a_key_that_is_not_taken_is_made_again(home: Path, damaged: str) -> None:
    server = supervised(home, devcontrol())
    async with running(server):
        (server.directory / "api.key").write_text(damaged)
        key = await obtain_api_key(server)
        assert key.get_secret_value() != damaged
        assert await obtain_api_key(server) == key


async def test_a_key_survives_a_restart_of_the_server(home: Path) -> None:
    server = supervised(home, devcontrol())
    async with running(server):
        key = await obtain_api_key(server)
    async with running(server):
        assert await obtain_api_key(server) == key


async def test_without_a_server_no_key_is_thrown_away(home: Path) -> None:
    server = supervised(home, devcontrol())
    server.prepare()
    (server.directory / "api.key").write_text("hskey-api-kept")
    with pytest.raises(HeadscaleUnavailable):
        await obtain_api_key(server)
    assert (server.directory / "api.key").read_text() == "hskey-api-kept"


class Elsewhere(SupervisedServer):
    """One whose API answers what a test wrote down."""

    url = ""


async def test_only_a_refused_key_is_replaced(home: Path, scripted: Scripted) -> None:
    server = Elsewhere(home / "server", program(home / "headscale", "echo '\"new\"'"), run_dir=home / "run")
    server.prepare()
    server.url = scripted.url
    (server.directory / "api.key").write_text("kept")
    scripted.on("GET", "/api/v1/user", {"code": 2, "message": "something else"}, status=500)
    with pytest.raises(HeadscaleRefused, match="something else"):
        await obtain_api_key(server)
    assert (server.directory / "api.key").read_text() == "kept"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo 'secret-on-stdout'; echo 'no socket' >&2; exit 1", "exit status 1: no socket"),
        ("echo 'secret-on-stdout'", "exit status 0"),
        ("echo '{}'", "exit status 0"),
        ("exit 0", "exit status 0"),
    ],
)
async def test_a_failed_create_says_why_and_shows_no_output(home: Path, script: str, words: str) -> None:
    server = supervised(home, program(home / "headscale", script))
    server.prepare()
    with pytest.raises(HeadscaleUnavailable, match=words) as failed:
        await obtain_api_key(server)
    assert "secret-on-stdout" not in str(failed.value)


async def test_a_binary_that_is_gone_is_one_sentence(home: Path) -> None:
    binary = program(home / "headscale", "exit 0")
    server = supervised(home, binary)
    server.prepare()
    binary.path.unlink()
    with pytest.raises(Misconfigured, match="cannot be run"):
        await obtain_api_key(server)


async def test_no_policy_is_filled_and_ours_is_kept() -> None:
    fake = FakeHeadscale()
    assert await ensure_policy(fake) is PolicyOutcome.INSTALLED
    assert await ensure_policy(fake) is PolicyOutcome.KEPT
    assert fake.calls.count("set_policy") == 1


async def test_the_policy_is_in_the_form_of_the_version() -> None:
    for level, section in (((0, 27), "acls"), ((0, 28), "acls"), ((0, 29), "grants"), ((0, 30), "grants")):
        fake = FakeHeadscale(version=Version("dev", level))
        await ensure_policy(fake)
        assert section in (await fake.get_policy() or {})


async def test_ours_in_the_older_form_is_kept_after_an_upgrade() -> None:
    fake = FakeHeadscale()
    await fake.set_policy(default_policy((0, 28)))
    assert await ensure_policy(fake) is PolicyOutcome.KEPT


async def test_somebody_elses_policy_is_replaced_only_when_told_to() -> None:
    fake = FakeHeadscale()
    await fake.set_policy(OPEN)
    with pytest.raises(Misconfigured, match=r"it lets \* reach \* on \*") as refused:
        await ensure_policy(fake)
    assert refused.value.reason == "foreign_policy"
    assert await fake.get_policy() == OPEN
    assert await ensure_policy(fake, adopt=True) is PolicyOutcome.REPLACED
    assert is_equivalent(await fake.get_policy(), default_policy((0, 29)))


async def test_a_headscale_that_is_down_is_not_one_without_a_policy() -> None:
    fake = FakeHeadscale()
    fake.fail("get_policy")
    with pytest.raises(HeadscaleUnavailable):
        await ensure_policy(fake)
    assert "set_policy" not in fake.calls


def test_a_key_shows_in_no_repr() -> None:
    assert "hskey" not in repr(SecretStr("hskey-api-x"))
