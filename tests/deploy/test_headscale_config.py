"""headscale-config/config.yaml: what the seed's has become, against the one that elizacloud writes for its own Headscale."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from elizacloud.headscale.config import ServerConfig, render
from tests.deploy.compose import DEPLOY, EXAMPLE, load
from tests.deploy.programs import run

TEXT = (DEPLOY / "headscale-config" / "config.yaml").read_text()
HEADSCALES = [path for path in os.environ.get("ELIZACLOUD_HEADSCALE_BIN", "").split(":") if path]

_SUPERVISED = ServerConfig(
    Path("/d"), Path("/s"), "https://headscale.example.com", "127.0.0.1", 8080, 3478, 9090, ipv6=True
)


def keys(document: Any, prefix: str = "") -> set[str]:
    if not isinstance(document, dict):
        return {prefix}
    return {found for key, value in document.items() for found in keys(value, f"{prefix}.{key}" if prefix else key)}


def at(document: Any, path: str) -> Any:
    for key in path.split("."):
        document = document[key]
    return document


def moved(directory: Path) -> Path:
    """The config with every path in this directory."""
    (directory / "config.yaml").write_text(TEXT.replace("/var/lib/headscale", str(directory)))
    return directory / "config.yaml"


def test_it_has_the_keys_of_the_one_that_the_contract_suite_runs() -> None:
    """Headscale ignores a misspelt key in silence."""
    assert keys(yaml.safe_load(TEXT)) - {"trusted_proxies"} == keys(yaml.safe_load(render(_SUPERVISED)))


@pytest.mark.parametrize(
    "path",
    [
        *("prefixes", "policy", "dns", "tuning", "database.type", "logtail", "taildrop", "disable_check_updates"),
        *("derp.urls", "derp.auto_update_enabled", "derp.server.enabled", "derp.server.verify_clients"),
        *("derp.server.region_id", "derp.server.automatically_add_embedded_derp_region", "grpc_allow_insecure"),
    ],
)
def test_it_means_the_same(path: str) -> None:
    assert at(yaml.safe_load(TEXT), path) == at(yaml.safe_load(render(_SUPERVISED)), path)


def test_nothing_of_the_seeds_is_left_that_headscale_refuses_or_ignores() -> None:
    document = yaml.safe_load(TEXT)
    assert not {"private_key_path", "ip_prefixes", "dns_config"} & document.keys()


def test_it_writes_into_what_compose_gives_it() -> None:
    mounts = load(EXAMPLE).services["headscale"].mounts
    document = yaml.safe_load(TEXT)
    for path in ("noise.private_key_path", "derp.server.private_key_path", "database.sqlite.path"):
        assert str(Path(at(document, path)).parent) in mounts
    assert document["unix_socket"].startswith("/var/run/headscale/")


def test_a_variable_of_compose_is_a_key() -> None:
    document = keys(yaml.safe_load(TEXT))
    for variable in load(EXAMPLE).services["headscale"].environment:
        assert variable.removeprefix("HEADSCALE_").lower() in {key.replace(".", "_") for key in document}


@pytest.mark.skipif(not HEADSCALES, reason="no headscale: set ELIZACLOUD_HEADSCALE_BIN")
@pytest.mark.parametrize("headscale", HEADSCALES, ids=lambda path: Path(path).name)
def test_headscale_takes_it(headscale: str, tmp_path: Path) -> None:
    environment = load(EXAMPLE).services["headscale"].environment
    checked = run(headscale, "configtest", "--config", moved(tmp_path), HOME=str(tmp_path), **environment)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "deprecat" not in (checked.stdout + checked.stderr).lower()
