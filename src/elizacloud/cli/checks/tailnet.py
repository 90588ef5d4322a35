"""The relay's place on the tailnet: its tailscaled runs, is logged in, is known to Headscale, has a DERP, sees its peers."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

from elizacloud.cli.checks.check import Check, fail, ok, warn
from elizacloud.cli.checks.facts import Facts
from elizacloud.errors import Error, Unavailable
from elizacloud.headscale.client import HeadscaleClient
from elizacloud.headscale.preflight import Finding
from elizacloud.headscale.protocol import Headscale, Node
from elizacloud.model import TAG_AGENT, TAG_RELAY
from elizacloud.tailnet import LocalApi, Netmap
from elizacloud.tailnet.bus import WATCH_NETMAP
from elizacloud.tailnet.localapi import Status

RELAY = "relay on the tailnet"
DERP = "DERP"
PEERS = "relay's peers"
NODE = "relay's node"


def tailnet_checks(facts: Facts) -> list[Check]:
    path = facts.tailscaled_socket
    if path is None:
        return []

    async def relay() -> Sequence[Finding]:
        url, key = facts.headscale_url, facts.headscale_key
        if url is None or key is None:
            return await look_at_relay(path, None)
        headscale = HeadscaleClient(url, key)
        try:
            return await look_at_relay(path, headscale)
        finally:
            await headscale.close()

    return [Check(RELAY, relay)]


async def look_at_relay(path: Path, headscale: Headscale | None) -> list[Finding]:
    """What its tailscaled says and, if there is a Headscale to ask, whether that one agrees."""
    api = LocalApi(path)
    try:
        try:
            status = await api.status()
        except Unavailable as error:
            fix = "`elizacloud up` keeps it running: see relay-tailscaled.log in the data dir's logs"
            return [fail(RELAY, str(error), fix)]
        findings = status_findings(status)
        if status.state == "Running":
            findings.append(peers_finding(await _netmap(api)))
            if headscale is not None:
                findings.append(await _known(headscale, status))
        return findings
    finally:
        await api.close()


def status_findings(status: Status) -> list[Finding]:
    """What tailscaled says of itself, as findings: logged in or not, and whether it has a DERP."""
    if status.state != "Running" or not status.ips:
        fixes = {
            "NeedsLogin": "restart the relay: it logs in again with a new key; if it does not, see Headscale's log",
            "Starting": "Headscale or its DERP cannot be reached from the relay: see their findings",
            "Stopped": "it was stopped by hand: restart the relay",
        }
        cause = f"its tailscaled is {status.state or 'in no state'}"
        if status.health:
            cause += f": {'; '.join(status.health)}"
        return [fail(RELAY, cause, fixes.get(status.state, "restart the relay"))]
    findings = [ok(RELAY, f"node {status.node_id} at {status.ips[0]}")]
    derp = [text for text in status.health if _is_about_derp(text)]
    if derp:
        fix = "open the DERP's TCP port and UDP 3478 to relay and agents; see Headscale's derp section"
        findings.append(fail(DERP, "; ".join(derp), fix))
    else:
        findings.append(ok(DERP, "connected"))
    if other := [text for text in status.health if text not in derp]:
        findings.append(warn(RELAY, "; ".join(other), "see tailscaled's log"))
    return findings


def peers_finding(netmap: Netmap) -> Finding:
    agents = [peer for peer in netmap if TAG_AGENT in peer.tags]
    online = sum(peer.online for peer in agents)
    if agents and not online:
        fix = "see whether they run; right after a restart of Headscale it takes up to 10 s until they are back"
        return warn(PEERS, f"{len(agents)} agents, none online", fix)
    return ok(PEERS, f"{len(agents)} agents, {online} online")


async def _known(headscale: Headscale, status: Status) -> Finding:
    try:
        return node_finding(status, await headscale.get_node(status.node_id))
    except Error as error:
        return warn(NODE, f"Headscale could not be asked: {error}", "see Headscale's finding")


def node_finding(status: Status, node: Node | None) -> Finding:
    """Whether Headscale has the relay as its tailscaled believes: a deleted node goes on to say that it is Running."""
    if node is None:
        cause = f"Headscale has no node {status.node_id}: it was deleted, and no agent answers the relay any more"
        return fail(
            NODE, cause, "restart the relay's tailscaled (`elizacloud up` again), so that it joins with a new key"
        )
    if TAG_RELAY not in node.tags:
        cause = f"node {node.id} does not carry {TAG_RELAY}, so that the policy lets it reach nobody"
        return fail(NODE, cause, f"delete node {node.id} in Headscale and restart the relay, so that it joins anew")
    return ok(NODE, f"Headscale has it as node {node.id} with {TAG_RELAY}")


async def _netmap(api: LocalApi) -> Netmap:
    netmap = Netmap()
    async with aclosing(api.watch(WATCH_NETMAP)) as events:
        async for event in events:
            netmap.apply(event)
            if netmap.known:
                break
    return netmap


def _is_about_derp(text: str) -> bool:
    lower = text.lower()
    return "derp" in lower or "relay server" in lower
