"""The units for a machine without Docker: systemd takes them, they are confined, and they say what our programs read."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from elizacloud.settings import ENV_PREFIX, Settings, load_settings
from tests.deploy.compose import DEPLOY, EXAMPLE, load
from tests.deploy.programs import program, run

UNITS = DEPLOY / "systemd"
SERVICES = sorted(UNITS.glob("elizacloud-*.service"))
MOST_EXPOSED = 30
"""Tenths; systemd calls 10 dangerous, and most units of a distribution are above 90."""

of_services = pytest.mark.parametrize("unit", SERVICES, ids=lambda path: path.stem)


def lines(unit: Path, name: str) -> list[str]:
    text = unit.read_text()
    return [line.removeprefix(f"{name}=").strip('"') for line in text.splitlines() if line.startswith(f"{name}=")]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The units as they would lie in /etc/systemd/system, with programs that exist."""
    directory = tmp_path / "units"
    shutil.copytree(UNITS, directory)
    for unit in directory.glob("*.service"):
        unit.write_text(re.sub(r"(?<==)(/opt/elizacloud/bin|/usr/sbin)/\w+", "/bin/true", unit.read_text()))
    for name in ("headscale", "caddy", "postgresql"):
        (directory / f"{name}.service").write_text("[Service]\nExecStart=/bin/true\n")
    return directory


def test_systemd_takes_them(installed: Path) -> None:
    analyze = program("systemd-analyze", wanted="install systemd")
    units = [*installed.glob("elizacloud*.service"), *installed.glob("elizacloud*.socket"), *installed.glob("*.target")]
    checked = run(analyze, "verify", "--man=no", *units, SYSTEMD_UNIT_PATH=f"{installed}:")
    # What else is wrong on this machine is not ours.
    said = [line for line in (checked.stdout + checked.stderr).splitlines() if "elizacloud" in line]
    assert said == []


@of_services
def test_it_is_confined(installed: Path, unit: Path) -> None:
    analyze = program("systemd-analyze", wanted="install systemd")
    environment = {"SYSTEMD_UNIT_PATH": f"{installed}:"}
    options = ("--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager")
    checked = run(analyze, "security", *options, installed / unit.name, **environment)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@of_services
def test_it_is_one_of_those_that_the_confinement_is_for(unit: Path) -> None:
    assert (UNITS / "elizacloud-.service.d" / "hardened.conf").exists()
    for name in ("User", "NoNewPrivileges", "ProtectSystem", "CapabilityBoundingSet"):
        assert not lines(unit, name), f"{name} is hardened.conf's"


@of_services
def test_each_secret_is_a_credential(unit: Path) -> None:
    """None is in a unit or in an environment: a variable names the file that systemd made for this service alone."""
    credentials = {line.partition(":")[0] for line in lines(unit, "LoadCredential")}
    named = {found for line in lines(unit, "Environment") for found in re.findall(r"=file:%d/(\w+)$", line)}
    assert credentials == named
    for line in lines(unit, "Environment"):
        name = line.partition("=")[0].removeprefix(ENV_PREFIX).lower()
        if name in Settings.model_fields and "Secret" in str(Settings.model_fields[name].annotation):
            assert "file:%d/" in line


def test_the_relay_has_none() -> None:
    assert not lines(UNITS / "elizacloud-relay.service", "LoadCredential")


@of_services
def test_its_variables_are_settings(unit: Path) -> None:
    for line in lines(unit, "Environment"):
        name = line.partition("=")[0]
        if name.startswith(ENV_PREFIX) and name != "ELIZACLOUD_CONFIG":
            assert name.removeprefix(ENV_PREFIX).lower() in Settings.model_fields


def test_the_settings_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(Settings.model_fields):
        monkeypatch.delenv(f"{ENV_PREFIX}{name.upper()}", raising=False)
    settings = load_settings(file=UNITS / "elizacloud.toml").settings
    assert settings.headscale_api_url == "http://127.0.0.1:8080"
    assert settings.trusted_proxies


def test_sockets_lie_in_directories_that_systemd_makes() -> None:
    made = {f"/run/{name}" for unit in SERVICES for line in lines(unit, "RuntimeDirectory") for name in line.split()}
    written = tomllib.loads((UNITS / "elizacloud.toml").read_text())
    sockets = {name: path for name, path in written.items() if name.endswith("_socket")}
    assert len(sockets) == 4
    assert {str(Path(path).parent) for path in sockets.values()} == made


def test_agents_have_a_user_of_their_own_whom_the_control_plane_alone_may_ask() -> None:
    confinement, own = UNITS / "elizacloud-.service.d", UNITS / "elizacloud-agents.service.d"
    (user_conf,) = own.iterdir()
    assert all(user_conf.name > path.name for path in confinement.iterdir()), (
        "systemd reads them by name, the last one wins"
    )
    (user,) = lines(user_conf, "User")
    (others,) = lines(confinement / "hardened.conf", "User")
    assert user != others
    assert lines(user_conf, "Group") == [user]
    users = re.findall(r"^u (\S+)", (UNITS / "elizacloud.sysusers").read_text(), re.MULTILINE)
    assert {user, others} == set(users)
    groups = {unit.stem: lines(unit, "SupplementaryGroups") for unit in SERVICES if lines(unit, "SupplementaryGroups")}
    assert groups == {"elizacloud-control-plane": [user]}
    agents = UNITS / "elizacloud-agents.service"
    assert lines(agents, "RuntimeDirectoryMode") == ["0750"]
    assert "--group-may-ask" in lines(agents, "ExecStart")[0].split()


def test_the_commands_are_those_of_compose() -> None:
    services = load(EXAMPLE).services
    pairs = {"control-plane": "control-plane", "join-relay": "join-relay", "relay-tailscaled": "relay-tailscaled"}
    for compose, unit in pairs.items():
        (command,) = lines(UNITS / f"elizacloud-{unit}.service", "ExecStart")
        program_, *arguments = command.split()
        expected = services[compose].argv
        assert Path(program_).name == expected[0]
        assert [argument.partition("=")[0] for argument in arguments] == [
            text.partition("=")[0] for text in expected[1:]
        ]


def test_the_target_wants_each() -> None:
    wanted = {name for line in lines(UNITS / "elizacloud.target", "Wants") for name in line.split()}
    assert wanted == {unit.name for unit in SERVICES} | {"elizacloud-relay.socket"}


def test_no_restart_of_ours_touches_the_relays_tailscaled() -> None:
    unit = UNITS / "elizacloud-relay-tailscaled.service"
    assert not lines(unit, "PartOf")
    assert not lines(unit, "Requires")
    assert not [other for other in SERVICES if "relay-tailscaled" in str(lines(other, "BindsTo"))]


def test_the_names_are_those_of_the_caddyfile() -> None:
    drop_in = UNITS / "caddy.service.d" / "elizacloud.conf"
    given = {line.partition("=")[0] for line in lines(drop_in, "Environment")}
    asked = set(re.findall(r"\{\$([A-Z_]+)", (DEPLOY / "caddy" / "Caddyfile").read_text()))
    assert given == asked - {"HTTP_PORT", "HTTPS_PORT"}
