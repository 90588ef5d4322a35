"""What the environment may say."""

from pathlib import Path

import pytest

from elizacloud.stub_agent.config import TcpAddress, UnixAddress, read_config


def test_it_listens_on_the_agents_port_of_loopback_by_default() -> None:
    assert read_config({}).listen == TcpAddress("127.0.0.1", 2138)


@pytest.mark.parametrize(
    ("environment", "listen"),
    [
        ({"PORT": "3000"}, TcpAddress("127.0.0.1", 3000)),
        ({"PORT": "3000", "MILADY_PORT": "4000"}, TcpAddress("127.0.0.1", 4000)),
        ({"ELIZA_PORT": "4000", "ELIZA_API_BIND": "0.0.0.0"}, TcpAddress("0.0.0.0", 4000)),
        ({"ELIZACLOUD_AGENT_LISTEN": "unix:/run/a.sock", "PORT": "1"}, UnixAddress("/run/a.sock")),
        ({"ELIZACLOUD_AGENT_LISTEN": "[::1]:9"}, TcpAddress("::1", 9)),
    ],
)
def test_where_it_listens(environment: dict[str, str], listen: object) -> None:
    assert read_config(environment).listen == listen


def test_on_a_unix_socket_it_believes_to_be_bound_to_all_addresses_unless_strict() -> None:
    unix = {"ELIZACLOUD_AGENT_LISTEN": "unix:/run/a.sock"}
    assert read_config(unix).bind_host == "0.0.0.0"
    assert read_config(unix | {"STUB_STRICT_HOST": "1"}).bind_host == "127.0.0.1"


def test_both_families_of_names_are_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"name": "Ada", "theme": "dark"}')
    config = read_config(
        {
            "ELIZA_API_TOKEN": "t",
            "MILADY_CLOUD_PROVISIONED": "1",
            "MILADY_ALLOWED_HOSTS": "a, b,",
            "ELIZACLOUD_AGENT_CONFIG": str(tmp_path / "config.json"),
            "CONTAINER_ID": "id",
        }
    )
    assert (config.api_token, config.cloud_provisioned, config.allowed_hosts) == ("t", True, ("a", "b"))
    assert (config.agent_name, config.agent_config["theme"]) == ("Ada", "dark")
    assert config.identity == {"agentId": "id", "generation": "", "run": ""}
    assert "'t'" not in repr(config)


@pytest.mark.parametrize("listen", ["nonsense", "host:", "host:http"])
def test_a_wrong_address_is_a_sentence(listen: str) -> None:
    with pytest.raises(ValueError, match="cannot listen on"):
        read_config({"ELIZACLOUD_AGENT_LISTEN": listen})
