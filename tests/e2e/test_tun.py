"""Who cannot have TUN mode is told so in one sentence, before anything is started."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from bench.netns import Namespace, namespace_with_a_way_out, why_not

from tests.e2e.cloud import Cloud
from tests.e2e.doors import Door, agent_dialled
from tests.fakes import raw_agent

WITHOUT_NET_ADMIN = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"]
WITHIN_SECONDS = 60


@pytest.fixture
def inside() -> Iterator[Namespace]:
    if reason := why_not():
        pytest.skip(reason)
    with namespace_with_a_way_out() as (inside, _), inside.entered():
        yield inside


def refusal(data_dir: Path, *arguments: str, before: list[str] | None = None) -> str:
    """What a command writes that ends at once with an error."""
    command = [*(before or []), *Cloud("devcontrol").command(*arguments, "--data-dir", str(data_dir))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=WITHIN_SECONDS, check=False, env=os.environ)
    assert done.returncode != 0
    (line,) = done.stderr.splitlines()
    return line


async def ask_once(door: Door) -> None:
    await door.seen("GET", "/echo")
    for client in door.clients:
        client.close()
        await client.writer.wait_closed()


def test_up_without_the_capability(inside: Namespace, tmp_path: Path) -> None:
    told = refusal(tmp_path / "data", "up", "--tailnet-mode", "tun", before=WITHOUT_NET_ADMIN)
    assert "CAP_NET_ADMIN" in told
    assert "AmbientCapabilities" in told
    assert not (tmp_path / "data").exists()


def test_up_beside_another_tailnet(inside: Namespace, tmp_path: Path) -> None:
    inside.run("ip", "link", "add", "tailscale0", "type", "veth", "peer", "other")
    inside.run("ip", "addr", "add", "100.80.1.2/32", "dev", "tailscale0")
    assert "tailscale0 has 100.80.1.2" in refusal(tmp_path / "data", "up", "--tailnet-mode", "tun")


def test_relay_without_the_blackhole(inside: Namespace, tmp_path: Path) -> None:
    told = refusal(tmp_path / "data", "relay", "--tailnet-mode", "tun", "--port", "0")
    assert "ip -4 rule add to 100.64.0.0/10 blackhole priority 5300" in told


def test_a_mode_that_there_is_not(tmp_path: Path) -> None:
    assert "tailnet_mode" in refusal(tmp_path / "data", "up", "--tailnet-mode", "magic")


def test_up_leaves_the_network_as_it_was(headscale: str) -> None:
    resolver = Path("/etc/resolv.conf").read_bytes()
    with agent_dialled("tun", raw_agent.__file__, headscale=headscale) as place:
        asyncio.run(ask_once(Door(place, by_host=False)))
        sockets = subprocess.run(["ss", "-tnH"], capture_output=True, text=True, check=True).stdout
        assert "%tailscale-ec" in sockets
        rules = subprocess.run(["ip", "rule"], capture_output=True, text=True, check=True).stdout
        assert "blackhole" in rules
        assert Path("/etc/resolv.conf").read_bytes() == resolver


def test_up_takes_the_blackhole_away_at_its_end(inside: Namespace, headscale: str) -> None:
    before = inside.run("ip", "rule"), inside.run("ip", "-6", "rule")
    cloud = Cloud(headscale, environment={"ELIZACLOUD_TAILNET_MODE": "tun"})
    try:
        cloud.start()
        assert cloud.stop() == 0
    finally:
        cloud.remove()
    assert (inside.run("ip", "rule"), inside.run("ip", "-6", "rule")) == before
