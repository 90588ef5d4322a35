"""Folding the bus' events: each row of what was seen to come for a join, a loss, a restart and a delete."""

from typing import Any

import pytest

from elizacloud.tailnet.netmap import Netmap, Peer

SELF = {"ID": 1, "StableID": "1", "Addresses": ["100.64.0.1/32", "fd7a:115c:a1e0::1/128"]}


def node(
    number: int, *, ip: str = "", tags: tuple[str, ...] = (), key: str = "", online: bool = True
) -> dict[str, Any]:
    return {
        "ID": number,
        "StableID": str(number),
        "Key": key or f"nodekey:{number}",
        "Addresses": [f"{ip or f'100.64.0.{number}'}/32", f"fd7a:115c:a1e0::{number}/128"],
        "Tags": [*tags],
        "Hostinfo": {"Hostname": f"milaidy-{number}"},
        "Online": online,
    }


def status(*numbers: int) -> dict[str, Any]:
    return {
        "State": 6,
        "InitialStatus": {
            "TailscaleIPs": ["100.64.0.1", "fd7a:115c:a1e0::1"],
            "Peer": {
                f"nodekey:{number}": {
                    "ID": str(number),
                    "PublicKey": f"nodekey:{number}",
                    "HostName": f"milaidy-{number}",
                    "TailscaleIPs": [f"100.64.0.{number}", f"fd7a:115c:a1e0::{number}"],
                    "Tags": None,
                    "Online": True,
                }
                for number in numbers
            },
        },
    }


@pytest.fixture
def netmap() -> Netmap:
    made = Netmap()
    made.apply(status(2, 3))
    return made


def ids(netmap: Netmap) -> set[str]:
    return {peer.node_id for peer in netmap}


def test_before_the_first_event_nothing_is_known() -> None:
    netmap = Netmap()

    assert not netmap.known
    assert netmap.peer_at("100.64.0.2") is None


def test_the_first_event_has_everybody(netmap: Netmap) -> None:
    assert netmap.known
    assert netmap.peer_at("100.64.0.2") == Peer(
        "2", ("100.64.0.2", "fd7a:115c:a1e0::2"), frozenset(), "nodekey:2", "milaidy-2", online=True
    )
    assert netmap.peer_at("fd7a:115c:a1e0::3") == netmap.peer("3")
    assert netmap.peer_at("100.64.0.9") is None


def test_a_node_of_a_delta_equals_the_same_one_of_the_status(netmap: Netmap) -> None:
    assert netmap.apply({"PeersChanged": [node(2), node(3)]}) == ()


def test_a_join_is_a_whole_netmap_then_an_online_patch(netmap: Netmap) -> None:
    (joined,) = netmap.apply({"SelfChange": SELF, "PeersChanged": [node(2), node(3), node(4, online=False)]})
    assert joined.before is None
    assert joined.identity
    (online,) = netmap.apply({"PeerChangedPatch": [{"NodeID": 4, "Online": True}]})

    assert online.after == netmap.peer("4")
    assert online.after is not None
    assert online.after.online
    assert not online.identity


def test_a_loss_is_an_offline_patch(netmap: Netmap) -> None:
    (change,) = netmap.apply({"PeerChangedPatch": [{"NodeID": 2, "Online": False, "LastSeen": "2026-01-01T00:00:00Z"}]})

    assert change.after is not None
    assert not change.after.online
    assert ids(netmap) == {"2", "3"}


def test_a_restart_replaces_one_node_and_keeps_the_others(netmap: Netmap) -> None:
    (change,) = netmap.apply({"PeersChanged": [node(2, key="nodekey:new")]})

    assert change.identity
    assert ids(netmap) == {"2", "3"}


def test_a_delete_is_a_whole_netmap_without_the_node_and_names_nobody(netmap: Netmap) -> None:
    (change,) = netmap.apply({"SelfChange": SELF, "PeersChanged": [node(3)]})

    assert (change.before and change.before.node_id, change.after) == ("2", None)
    assert netmap.peer_at("100.64.0.2") is None


def test_the_delete_of_the_last_peer_has_no_list_at_all(netmap: Netmap) -> None:
    netmap.apply({"SelfChange": SELF})

    assert ids(netmap) == set()


def test_removed_peers_are_named_in_a_delta(netmap: Netmap) -> None:
    netmap.apply({"PeersRemoved": [2], "PeersChanged": [node(4)]})

    assert ids(netmap) == {"3", "4"}


def test_an_address_that_moved_belongs_to_its_new_node(netmap: Netmap) -> None:
    netmap.apply({"SelfChange": SELF, "PeersChanged": [node(3), node(7, ip="100.64.0.2")]})

    peer = netmap.peer_at("100.64.0.2")
    assert peer is not None
    assert peer.node_id == "7"


def test_an_address_of_two_peers_belongs_to_nobody(netmap: Netmap) -> None:
    netmap.apply({"PeersChanged": [node(7, ip="100.64.0.2")]})
    assert netmap.peer_at("100.64.0.2") is None

    netmap.apply({"PeersChanged": [node(8, ip="100.64.0.2")]})
    assert netmap.peer_at("100.64.0.2") is None, "a third peer made an ambiguous address good"


def test_the_own_address_is_no_peer_even_when_a_peer_claims_it(netmap: Netmap) -> None:
    netmap.apply({"SelfChange": SELF, "PeersChanged": [node(7, ip="100.64.0.1")]})

    assert netmap.peer_at("100.64.0.1") is None


@pytest.mark.parametrize("state", [0, 2, 3, 4])
def test_without_a_login_there_is_no_netmap(netmap: Netmap, state: int) -> None:
    changes = netmap.apply({"State": state})

    assert {change.before and change.before.node_id for change in changes} == {"2", "3"}
    assert ids(netmap) == set()


def test_other_events_change_nothing(netmap: Netmap) -> None:
    events: list[dict[str, Any]] = [
        {"State": 6},
        {"State": 5},
        {"Health": {}},
        {"Engine": {}},
        {},
        {"PeersChanged": None},
    ]
    for event in events:
        assert netmap.apply(event) == ()
    assert netmap.apply({"PeerChangedPatch": [{"NodeID": 77, "Online": True}]}) == ()


def test_while_the_bus_is_not_followed_nobody_is_found(netmap: Netmap) -> None:
    netmap.lost()
    assert netmap.peer_at("100.64.0.2") is None
    assert netmap.peer("2") is None

    changes = netmap.apply(status(3))

    assert [change.before and change.before.node_id for change in changes] == ["2"]
    assert netmap.peer_at("100.64.0.3") is not None
