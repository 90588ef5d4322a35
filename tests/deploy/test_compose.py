"""compose.yaml: pinned, confined, and each service with no more than it needs."""

from __future__ import annotations

import ipaddress
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from elizacloud import __version__
from elizacloud.app.relay import NOT_THE_RELAYS
from elizacloud.settings import ENV_PREFIX, load_settings
from tests.deploy.compose import COMPOSE_FILE, DEPLOY, EXAMPLE, ONE_SHOT, Service, load

COMPOSE = load(EXAMPLE)
SERVICES = COMPOSE.services
OURS = {name for name, service in SERVICES.items() if service.argv[0] == "elizacloud"}
EVERY = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)

DOCKER_SOCKET = "/var/run/docker.sock"


def test_compose_itself_takes_it() -> None:
    docker = shutil.which("docker-compose") or shutil.which("docker")
    if docker is None:
        pytest.skip("no docker: install it with its Compose plugin")
    command = [docker] if docker.endswith("-compose") else [docker, "compose"]
    if subprocess.run([*command, "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker has no Compose plugin here")

    checked = subprocess.run(
        [*command, "--file", COMPOSE_FILE, "config", "--quiet"],
        env=EXAMPLE,
        capture_output=True,
        text=True,
        check=False,
    )

    assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("missing", EXAMPLE)
def test_it_says_which_variable_is_missing(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        load({name: value for name, value in EXAMPLE.items() if name != missing})


@EVERY
def test_an_image_is_pinned_or_built_here(service: Service) -> None:
    assert "build" in service.facts or re.fullmatch(
        r"[a-z/]+:v?\d+\.\d+(\.\d+)?(-[a-z]+)?@sha256:[0-9a-f]{64}", service.facts["image"]
    )


@EVERY
def test_what_is_built_here_has_our_version(service: Service) -> None:
    assert "build" not in service.facts or service.facts["image"].endswith(f":{__version__}")


@EVERY
def test_it_is_confined(service: Service) -> None:
    facts = service.facts
    assert facts["read_only"] is True
    assert facts["cap_drop"] == ["ALL"]
    assert facts.get("cap_add", []) == (["NET_BIND_SERVICE"] if service.name == "caddy" else [])
    assert facts["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in facts
    assert facts["user"] not in ("", "root", "0", "0:0")
    assert facts["logging"]["options"].keys() == {"max-size", "max-file"}


@EVERY
def test_what_runs_on_is_restarted_and_looked_after(service: Service) -> None:
    if service.name in ONE_SHOT:
        assert service.facts["restart"] == "no"
    else:
        assert service.facts["restart"] == "unless-stopped"
        assert service.health_check


@EVERY
def test_it_waits_for_what_is_there(service: Service) -> None:
    for name, condition in service.facts.get("depends_on", {}).items():
        wanted = "service_completed_successfully" if name in ONE_SHOT else "service_healthy"
        # Its health is that it has joined, which is what is being waited for.
        joins = (service.name, name) == ("join-relay", "relay-tailscaled")
        assert condition == {"condition": "service_started" if joins else wanted}


def test_what_ends_is_waited_for() -> None:
    """Else `up --wait` would take its end for a failure."""
    waited_for = {name for service in SERVICES.values() for name in service.facts.get("depends_on", {})}
    assert waited_for >= set(ONE_SHOT)


def test_three_ports_are_published() -> None:
    published = {(name, port) for name, service in SERVICES.items() for port in service.facts.get("ports", ())}
    assert published == {("caddy", "80:80"), ("caddy", "443:443"), ("headscale", "3478:3478/udp")}


def test_docker_is_the_control_planes() -> None:
    assert {name for name, service in SERVICES.items() if DOCKER_SOCKET in service.mounts} == {
        "control-plane",
        "sidecar-image",
    }


def test_the_relay_has_no_secret_and_reaches_no_server_but_caddy() -> None:
    relay = SERVICES["relay"]
    assert "secrets" not in relay.facts
    assert not {f"{ENV_PREFIX}{name.upper()}" for name in NOT_THE_RELAYS} & relay.environment.keys()
    assert relay.facts["networks"] == ["front"]
    assert {name for name, service in SERVICES.items() if "front" in service.facts.get("networks", ())} == {
        "relay",
        "caddy",
    }
    assert COMPOSE.document["networks"]["front"]["internal"] is True
    assert COMPOSE.document["networks"]["inside"]["internal"] is True


def test_a_tailscaled_has_its_socket_in_a_volume_that_agents_never_see() -> None:
    assert {name for name, service in SERVICES.items() if "tailscaled-socket" in service.mounts.values()} == {
        "prepare",
        "relay-tailscaled",
        "join-relay",
        "relay",
    }


def test_no_upgrade_of_ours_restarts_the_relays_tailscaled() -> None:
    assert "elizacloud" not in SERVICES["relay-tailscaled"].facts["image"]
    assert set(SERVICES["relay-tailscaled"].facts["depends_on"]) == {"prepare"}


@pytest.mark.parametrize("name", sorted(OURS))
def test_its_variables_are_settings(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each is known, and its value is taken; secrets come from files, one for each that is mounted."""
    secrets = set()
    monkeypatch.setenv("ELIZACLOUD_CONFIG", "")
    for variable, value in SERVICES[name].environment.items():
        assert variable.startswith(ENV_PREFIX)
        if value.startswith("file:/run/secrets/"):
            secret = value.removeprefix("file:/run/secrets/")
            secrets.add(secret)
            (tmp_path / secret).write_text("c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0MDA=\n")
            value = f"file:{tmp_path / secret}"
        monkeypatch.setenv(variable, value)

    loaded = load_settings()

    for variable, value in SERVICES[name].environment.items():
        setting = variable.removeprefix(ENV_PREFIX).lower()
        assert setting in loaded.shown(), f"{variable} is no setting"
        assert not value or loaded.sources[setting] == "environment"
    assert secrets == set(SERVICES[name].facts.get("secrets", ()))


@pytest.mark.parametrize("name", [name for name, service in SERVICES.items() if "DATA_DIR" in str(service.environment)])
def test_it_writes_in_its_volumes_only(name: str) -> None:
    mounts = SERVICES[name].mounts
    environment = SERVICES[name].environment
    assert environment["ELIZACLOUD_DATA_DIR"] in mounts
    for variable in ("API_SOCKET", "LINK_SOCKET", "TAILSCALED_SOCKET"):
        if path := environment.get(f"{ENV_PREFIX}{variable}"):
            assert str(Path(path).parent) in mounts


def test_the_parts_agree() -> None:
    relay, control_plane, join = (SERVICES[name].environment for name in ("relay", "control-plane", "join-relay"))
    for variable in ("API_SOCKET", "LINK_SOCKET", "PUBLIC_URL", "RELAY_DOMAIN"):
        assert relay[f"{ENV_PREFIX}{variable}"] == control_plane[f"{ENV_PREFIX}{variable}"]
    for variable in ("HEADSCALE_API_URL", "HEADSCALE_JOIN_URL", "HEADSCALE_API_KEY", "DATA_DIR"):
        assert join[f"{ENV_PREFIX}{variable}"] == control_plane[f"{ENV_PREFIX}{variable}"]
    assert (
        SERVICES["join-relay"].mounts["/var/lib/elizacloud"] == SERVICES["control-plane"].mounts["/var/lib/elizacloud"]
    )
    assert SERVICES["relay"].mounts["/var/lib/elizacloud"] == "relay-data"
    headscale = SERVICES["headscale"].facts["networks"]["inside"]["ipv4_address"]
    assert control_plane["ELIZACLOUD_HEADSCALE_API_URL"] == f"http://{headscale}:8080"
    caddy = SERVICES["caddy"].facts["networks"]
    assert relay["ELIZACLOUD_TRUSTED_PROXIES"] == caddy["front"]["ipv4_address"]
    assert (
        f"trusted_proxies: [{caddy['edge']['ipv4_address']}/32]"
        in (DEPLOY / "headscale-config" / "config.yaml").read_text()
    )
    assert relay["ELIZACLOUD_TAILSCALED_SOCKET"] in " ".join(SERVICES["relay-tailscaled"].argv)
    assert (
        SERVICES["sidecar-image"].environment["ELIZACLOUD_DOCKER_SIDECAR_IMAGE"]
        == (control_plane["ELIZACLOUD_DOCKER_SIDECAR_IMAGE"])
    )


def test_a_fixed_address_is_nobody_elses() -> None:
    """Docker gives the others theirs from `ip_range`, in the order in which they start."""
    fixed = [
        (name, ipaddress.ip_address(given["ipv4_address"]))
        for service in SERVICES.values()
        if isinstance(networks := service.facts.get("networks"), dict)
        for name, given in networks.items()
        if given
    ]
    assert len(fixed) == 3
    for name, address in fixed:
        (config,) = COMPOSE.document["networks"][name]["ipam"]["config"]
        assert address in ipaddress.ip_network(config["subnet"])
        assert address not in ipaddress.ip_network(config["ip_range"])


def test_volumes_and_secrets_are_declared() -> None:
    mounted = {
        source
        for service in SERVICES.values()
        for source in service.mounts.values()
        if not source.startswith((".", "/"))
    }
    assert mounted == set(COMPOSE.document["volumes"])
    given = {secret for service in SERVICES.values() for secret in service.facts.get("secrets", ())}
    assert given == set(COMPOSE.document["secrets"])


def test_a_volume_belongs_to_who_writes_it() -> None:
    """It takes the owner of what it is first mounted on: for images that are not ours, of what `prepare` mounts it on."""
    prepared = set(SERVICES["prepare"].mounts.values())
    ours = SERVICES["prepare"].facts["user"]
    for service in SERVICES.values():
        if service.facts["user"] == ours and "build" not in service.facts:
            volumes = {source for source in service.mounts.values() if not source.startswith((".", "/"))}
            assert volumes <= prepared
            assert "prepare" in service.facts["depends_on"]
    made = next(line for line in (DEPLOY / "Dockerfile").read_text().splitlines() if "/var/lib/headscale" in line)
    assert set(SERVICES["prepare"].mounts) <= set(made.split())
