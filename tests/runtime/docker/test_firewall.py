"""What is opened and closed on the host, and that nothing is made where that cannot be."""

from __future__ import annotations

import subprocess

import pytest

from elizacloud.errors import RuntimeRefused
from elizacloud.runtime.docker.firewall import Opening, openings_for, script
from tests.contract.docker_runtime import docker_rig
from tests.contract.runtimes import spec
from tests.docker_engine import DockerEngine, lift_filters

STUN = Opening(3478, protocol="udp")


def test_what_agents_call_is_open_at_its_address_or_by_its_name_at_any() -> None:
    found = openings_for(("http://172.17.0.1:8080", "https://cloud.example", None), stun_port=3478)

    assert found == (Opening(443), Opening(8080, "172.17.0.1"), STUN)


def test_what_is_named_twice_is_opened_once() -> None:
    assert openings_for(("http://10.0.0.1:80", "http://10.0.0.1"), stun_port=3478) == (Opening(80, "10.0.0.1"), STUN)


def test_the_host_of_a_rootless_docker_is_closed_where_it_is_a_machine_of_the_network() -> None:
    openings = openings_for(("http://10.77.0.1:8080", "http://10.77.0.1:9090"), stun_port=3478)

    rootless = script("br-1", openings, ("10.0.0.0/8",), rootless=True).splitlines()

    onward = [line.split(maxsplit=4)[4] for line in rootless if line.startswith("t -I EC-FWD")]
    ours = [rule for rule in onward if "10.77.0.1" in rule]
    assert ours == [
        "-p tcp -d 10.77.0.1 --dport 8080 -j RETURN",
        "-p tcp -d 10.77.0.1 --dport 9090 -j RETURN",
        "-p udp -d 10.77.0.1 --dport 3478 -j RETURN",
        "-p tcp -d 10.77.0.1 -j DROP",
    ]
    assert onward.index(ours[-1]) < onward.index("-d 10.0.0.0/8 -j DROP")
    assert "10.77.0.1 -j DROP" not in script("br-1", openings, ())


def test_every_shell_reads_the_script() -> None:
    said = subprocess.run(["sh", "-n"], input=script("br-1", (STUN,), ("10.0.0.0/8",)), text=True, check=False)

    assert said.returncode == 0


def test_a_chains_name_fits_for_the_longest_bridge() -> None:
    longest = max((word for word in script("br-0123456789ab", (), ()).split() if word.startswith("EC-")), key=len)

    assert len(longest) <= 28


async def test_where_the_filters_cannot_be_set_no_agent_is_made(docker_engine: DockerEngine) -> None:
    async with docker_rig(docker_engine, firewall=True, networks_closed=("no-network",)) as rig:
        with pytest.raises(RuntimeRefused, match="no-network") as refused:
            await rig.runtime.create(spec())

        assert refused.value.reason == "firewall_failed"
        assert rig.engine.names("containers") == []
        lift_filters(rig.engine.bridge_of("elizacloud-one"))
