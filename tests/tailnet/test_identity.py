"""Nothing is sent unless address, node id and tag agree."""

import pytest
from pydantic import SecretStr

from elizacloud.tailnet import Netmap, mismatch
from elizacloud.upstreams import Upstream
from tests.tailnet.test_netmap import SELF, node, status

AGENT = "bcdfghjkm2345678"
UPSTREAM = Upstream(AGENT, "owner", 1, 1, "cell", node_id="2", ip="100.64.0.2", agent_token=SecretStr("t"))
TAGS = ("tag:agent", f"tag:a-{AGENT}")


@pytest.fixture
def netmap() -> Netmap:
    made = Netmap()
    made.apply(status())
    made.apply({"SelfChange": SELF, "PeersChanged": [node(2, tags=TAGS)]})
    return made


def test_the_agents_own_node_at_its_address(netmap: Netmap) -> None:
    assert mismatch(netmap, UPSTREAM) is None


@pytest.mark.parametrize(
    ("peers", "said"),
    [
        ([], "no peer"),
        ([node(3, tags=TAGS, ip="100.64.0.2")], "belongs to node 3"),
        ([node(2, tags=("tag:agent", "tag:a-somebodyelse"))], "tag"),
        ([node(2, tags=("tag:agent",))], "tag"),
        ([node(2, tags=TAGS, ip="100.64.0.8")], "no peer"),
        ([node(2, tags=TAGS), node(3, ip="100.64.0.2")], "no peer"),
    ],
)
def test_anything_else(netmap: Netmap, peers: list[dict[str, object]], said: str) -> None:
    netmap.apply({"SelfChange": SELF, "PeersChanged": peers})

    assert said in (mismatch(netmap, UPSTREAM) or "")


def test_the_relays_own_address(netmap: Netmap) -> None:
    netmap.apply({"SelfChange": {**SELF, "Addresses": ["100.64.0.2/32"]}, "PeersChanged": [node(2, tags=TAGS)]})

    assert mismatch(netmap, UPSTREAM)


def test_a_netmap_that_is_not_current(netmap: Netmap) -> None:
    netmap.lost()

    assert "not current" in (mismatch(netmap, UPSTREAM) or "")
