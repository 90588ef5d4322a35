"""The data dir: private, held by one, kept as it is when it cannot be used."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from pydantic import SecretStr

from elizacloud.app.data_dir import DataDir, open_data_dir
from elizacloud.app.listening import remembered_report_address
from elizacloud.errors import Conflict, Misconfigured
from elizacloud.settings import Settings


def opened(path: Path) -> DataDir:
    return open_data_dir(Settings(data_dir=path))


def test_the_first_start_makes_it_private_and_the_second_finds_the_same(tmp_path: Path) -> None:
    first = opened(tmp_path / "a" / "b")
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    second = opened(tmp_path / "a" / "b")
    assert first == second
    settings = Settings(data_dir=first.path)
    assert first.secret_key(settings).get_secret_value() == second.secret_key(settings).get_secret_value()
    assert first.operator_token(settings).get_secret_value() == second.operator_token(settings).get_secret_value()
    assert (first.path / "secret.key").stat().st_mode & 0o777 == 0o600


def test_who_opens_a_new_one_at_the_same_time_finds_the_same(tmp_path: Path) -> None:
    together = Barrier(8)

    def open_it(_: int) -> tuple[str, str, str]:
        together.wait(timeout=20)
        data = opened(tmp_path / "a")
        settings = Settings(data_dir=data.path)
        key, token = data.secret_key(settings), data.operator_token(settings)
        return data.installation_id, key.get_secret_value(), token.get_secret_value()

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(open_it, range(8)))) == 1


def test_two_installations_differ(tmp_path: Path) -> None:
    assert opened(tmp_path / "a").installation_id != opened(tmp_path / "b").installation_id


def test_a_directory_that_others_may_read_is_closed_to_them(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    opened(tmp_path)
    assert tmp_path.stat().st_mode & 0o777 == 0o700


def test_a_second_holder_is_refused_also_from_another_process(tmp_path: Path) -> None:
    descriptor = opened(tmp_path).lock("up", "elizacloud up")
    code = (
        "import sys; from pathlib import Path; from elizacloud.settings import Settings\n"
        "from elizacloud.app.data_dir import open_data_dir\n"
        "open_data_dir(Settings(data_dir=Path(sys.argv[1]))).lock('up', 'elizacloud up')"
    )
    other = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "another elizacloud up holds it" in other.stderr
    with pytest.raises(Conflict):
        opened(tmp_path).lock("up", "elizacloud up")
    os.close(descriptor)
    os.close(opened(tmp_path).lock("up", "elizacloud up"))


def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path) -> None:
    content = json.dumps({"format": 99, "installationId": "x"})
    (tmp_path / "installation.json").write_text(content)
    with pytest.raises(Misconfigured, match="made by a newer version"):
        opened(tmp_path)
    assert (tmp_path / "installation.json").read_text() == content


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": "x", "installationId": "y"}'])
def test_a_half_written_one_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "installation.json").write_text(content)
    with pytest.raises(Misconfigured, match="cannot use the data dir"):
        opened(tmp_path)


def test_a_database_without_its_installation_is_refused(tmp_path: Path) -> None:
    (tmp_path / "store.db").touch()
    with pytest.raises(Misconfigured, match=r"has a database but no installation\.json"):
        opened(tmp_path)


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Misconfigured, match=r"cannot use the directory .*: it is not a directory"):
        opened(tmp_path / "file")


def test_sockets_fit_however_deep_it_lies(tmp_path: Path) -> None:
    deep = opened(tmp_path / ("d" * 100) / ("e" * 100))
    assert len(os.fsencode(deep.sockets)) < 60
    assert deep.sockets.stat().st_mode & 0o777 == 0o700
    assert deep.sockets == opened(deep.path).sockets
    deep.sockets.rmdir()


def test_a_given_secret_wins_over_the_kept_one(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, operator_token=SecretStr("given"))
    assert open_data_dir(settings).operator_token(settings).get_secret_value() == "given"
    assert not (tmp_path / "operator.token").exists()


def test_an_empty_store_in_place_of_one_that_was_there_is_refused(tmp_path: Path) -> None:
    data = opened(tmp_path)
    data.check_store(is_new=True)
    data.remember_store()
    again = opened(tmp_path)
    assert again.installation_id == data.installation_id
    again.check_store(is_new=False)
    with pytest.raises(Misconfigured, match="which is gone; restore it from a backup"):
        again.check_store(is_new=True)


def test_a_new_data_dir_joins_the_installation_of_a_shared_store(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, operator_token=SecretStr("given"))
    with pytest.raises(Misconfigured, match="ELIZACLOUD_OPERATOR_TOKEN has to be set"):
        opened(tmp_path).join("0123abcd", Settings(data_dir=tmp_path))
    assert opened(tmp_path).join("0123abcd", settings) == opened(tmp_path)
    data = opened(tmp_path)
    assert data.installation_id == "0123abcd"
    data.remember_store()
    with pytest.raises(Misconfigured, match="belongs to the installation other"):
        data.join("other", settings)
    assert opened(tmp_path).installation_id == "0123abcd"


@pytest.mark.parametrize(("content", "why"), [(b"", "empty"), (b"\xff\xfe", "damaged")])
def test_a_kept_secret_that_is_damaged_is_refused_and_left_alone(tmp_path: Path, content: bytes, why: str) -> None:
    settings = Settings(data_dir=tmp_path)
    (tmp_path / "operator.token").write_bytes(content)
    with pytest.raises(Misconfigured, match=f"operator.token: it is {why}; restore it"):
        opened(tmp_path).operator_token(settings)
    assert (tmp_path / "operator.token").read_bytes() == content


@pytest.mark.parametrize("content", ["", "{", "[]", '{"port": 99999999}', '{"port": null}'])
def test_a_damaged_report_address_is_chosen_anew(tmp_path: Path, content: str) -> None:
    (tmp_path / "report-address.json").write_text(content)
    chosen = remembered_report_address(opened(tmp_path))
    assert chosen.startswith("127.0.0.1:")
    assert remembered_report_address(opened(tmp_path)) == chosen
