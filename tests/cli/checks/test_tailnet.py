"""The relay's place on the tailnet, as its tailscaled tells it."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from elizacloud.cli.checks.tailnet import DERP, PEERS, RELAY, look_at_relay, node_finding, status_findings
from elizacloud.headscale.preflight import Verdict
from elizacloud.headscale.protocol import Node
from elizacloud.tailnet.localapi import Status


def status(state: str = "Running", *, health: tuple[str, ...] = (), ips: tuple[str, ...] = ("100.64.0.1",)) -> Status:
    return Status(state, True, "7", ips, health)


def test_a_relay_that_is_on_the_tailnet() -> None:
    findings = status_findings(status())
    assert [(finding.check, finding.verdict) for finding in findings] == [(RELAY, Verdict.OK), (DERP, Verdict.OK)]
    assert "100.64.0.1" in findings[0].cause


@pytest.mark.parametrize("state", ["NeedsLogin", "Starting", "Stopped", "NoState", ""])
def test_one_that_is_not(state: str) -> None:
    [finding] = status_findings(status(state, health=("not logged in",), ips=()))
    assert finding.verdict is Verdict.FAIL
    assert "not logged in" in finding.cause
    assert finding.fix


def test_without_a_derp_agents_behind_nat_are_not_reached() -> None:
    text = "Tailscale could not connect to the 'Headscale Embedded DERP' relay server."
    findings = status_findings(status(health=(text, "something else")))
    assert [(finding.check, finding.verdict) for finding in findings] == [
        (RELAY, Verdict.OK),
        (DERP, Verdict.FAIL),
        (RELAY, Verdict.WARN),
    ]
    assert "3478" in findings[1].fix


def test_a_relay_that_headscale_does_not_know_or_that_lost_its_tag() -> None:
    """Seen: a node deleted behind its back goes on to say Running, while no agent answers it."""
    deleted = node_finding(status(), None)
    assert deleted.verdict is Verdict.FAIL
    assert "no node 7" in deleted.cause
    assert node_finding(status(), node(("tag:agent",))).verdict is Verdict.FAIL
    assert node_finding(status(), node(("tag:relay", "tag:i-x"))).verdict is Verdict.OK


def node(tags: tuple[str, ...]) -> Node:
    return Node("7", "relay", "relay", "nodekey:a", "mkey:a", "100.64.0.1", None, tags, "1", True, None, None)


async def test_a_tailscaled_that_does_not_run() -> None:
    [finding] = await look_at_relay(Path("/nowhere/tailscaled.sock"), None)
    assert (finding.check, finding.verdict) == (RELAY, Verdict.FAIL)
    assert "relay-tailscaled.log" in finding.fix


def peer(number: int, tags: list[str], online: bool) -> dict[str, Any]:
    return {"ID": str(number), "TailscaleIPs": [f"100.64.0.{number}"], "Tags": tags, "Online": online}


@pytest.mark.parametrize(("online", "verdict"), [(True, Verdict.OK), (False, Verdict.WARN)])
async def test_its_peers_are_counted(online: bool, verdict: Verdict) -> None:
    own = {"ID": "1", "TailscaleIPs": ["100.64.0.1"]}
    peers = [peer(2, ["tag:agent", "tag:a-x"], online), peer(3, ["tag:operator"], True)]
    whole = {
        "BackendState": "Running",
        "HaveNodeKey": True,
        "TailscaleIPs": ["100.64.0.1"],
        "Self": own,
        "Peer": {f"nodekey:{index}": peer for index, peer in enumerate(peers)},
    }

    async def answer_status(request: web.Request) -> web.Response:
        return web.json_response({key: value for key, value in whole.items() if key != "Peer"})

    async def answer_bus(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(json.dumps({"State": 6}).encode() + b"\n")
        await response.write(json.dumps({"InitialStatus": whole}).encode() + b"\n")
        return response

    app = web.Application()
    app.router.add_get("/localapi/v0/status", answer_status)
    app.router.add_get("/localapi/v0/watch-ipn-bus", answer_bus)
    runner = web.AppRunner(app)
    await runner.setup()
    with tempfile.TemporaryDirectory(prefix="ec-", dir="/tmp") as directory:
        path = Path(directory) / "tailscaled.sock"
        await web.UnixSite(runner, str(path)).start()
        try:
            findings = await look_at_relay(path, None)
        finally:
            await runner.cleanup()
    assert findings[-1].check == PEERS
    assert findings[-1].verdict is verdict
    assert findings[-1].cause.startswith("1 agents")
