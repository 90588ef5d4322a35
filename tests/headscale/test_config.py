"""The rendered config.yaml says what keeps joins fast and everything private."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from elizacloud.headscale.config import ServerConfig, render


def config(**changes: Any) -> ServerConfig:
    values: dict[str, Any] = {
        "directory": Path("/data/headscale"),
        "unix_socket": Path("/run/ec/headscale.sock"),
        "join_url": "http://127.0.0.1:8080",
        "listen_host": "127.0.0.1",
        "port": 8080,
        "stun_port": 3478,
        "metrics_port": 9090,
        "ipv6": True,
    }
    return ServerConfig(**{**values, **changes})


def rendered(**changes: Any) -> dict[str, Any]:
    document = yaml.safe_load(render(config(**changes)))
    assert isinstance(document, dict)
    return document


def test_derp_and_stun_answer_on_both_families_where_there_are_two() -> None:
    server = rendered()["derp"]["server"]
    assert (server["ipv4"], server["ipv6"], server["stun_listen_addr"]) == ("127.0.0.1", "::1", "[::]:3478")
    alone = rendered(ipv6=False)["derp"]["server"]
    assert "ipv6" not in alone
    assert (alone["ipv4"], alone["stun_listen_addr"]) == ("127.0.0.1", "0.0.0.0:3478")


@pytest.mark.parametrize(
    ("join_url", "addresses"),
    [
        ("http://localhost:8080", {"ipv4": "127.0.0.1", "ipv6": "::1"}),
        ("http://192.168.1.5:8080", {"ipv4": "192.168.1.5"}),
        ("http://[fd00::5]:8080", {"ipv6": "fd00::5"}),
        ("https://headscale.example.com", {}),
    ],
)
def test_derp_has_the_literal_addresses_of_the_join_url(join_url: str, addresses: dict[str, str]) -> None:
    server = rendered(join_url=join_url)["derp"]["server"]
    assert {name: server[name] for name in ("ipv4", "ipv6") if name in server} == addresses


def test_nothing_listens_for_strangers_and_nothing_calls_home() -> None:
    document = rendered()
    assert document["listen_addr"] == "127.0.0.1:8080"
    assert document["metrics_listen_addr"] == "127.0.0.1:9090"
    assert document["unix_socket_permission"] == "0600"
    assert document["disable_check_updates"] is True
    assert (document["derp"]["urls"], document["derp"]["auto_update_enabled"]) == ([], False)
    assert document["logtail"] == {"enabled": False}


def test_policy_lives_in_the_database_and_addresses_are_random() -> None:
    document = rendered()
    assert document["policy"] == {"mode": "database"}
    assert document["prefixes"]["allocation"] == "random"
    assert document["tuning"] == {"node_store_batch_timeout": "10ms", "batch_change_delay": "10ms"}


def test_every_path_is_in_the_directory_also_with_odd_names() -> None:
    document = rendered(directory=Path('/data/it\'s: a "dir" # ümlaut'))
    paths = [
        document["noise"]["private_key_path"],
        document["derp"]["server"]["private_key_path"],
        document["database"]["sqlite"]["path"],
    ]
    assert all(path.startswith('/data/it\'s: a "dir" # ümlaut/') for path in paths)


def test_an_ipv6_listener_is_bracketed() -> None:
    assert rendered(listen_host="::1")["listen_addr"] == "[::1]:8080"
