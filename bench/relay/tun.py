"""Part 3: TUN mode, beside nginx over the same tailscaled, in network namespaces of this run.

Inside: the relay's tailscaled with its device, ours, nginx, the load. Outside: control server, the agent's tailscaled,
the upstream. A wire is between them, and neither has any way to this machine's network.
"""

from __future__ import annotations

from bench.netns import OUTSIDE_IP
from bench.relay import contenders, tools
from bench.relay.contenders import Place
from bench.relay.figures import OURS, Part
from bench.relay.load import until_answered
from bench.relay.loopback import start_upstream
from bench.relay.programs import Programs, free_port
from bench.relay.rounds import Contender, Meter, Proxy
from bench.relay.tailnet import running_tailnet
from bench.relay.userspace import ANSWERED_SECONDS, start_ours
from elizacloud.app.tailnet_mode import starting_tailscaled
from elizacloud.model import AGENT_PORT
from elizacloud.tailnet.tunnel import DEVICE

NGINX = "nginx"


async def measure(programs: Programs, meter: Meter) -> Part:
    part = Part("tun")
    upstream, _ = await start_upstream(programs)
    async with running_tailnet(programs, listen_host=OUTSIDE_IP) as tailnet:
        part.over = tailnet.says
        agent = await tailnet.agent(upstream)
        with starting_tailscaled():
            node = await tailnet.relay(agent, tun=DEVICE)
        found: list[Contender] = []
        if meter.plan.wants(OURS):
            found.append(await start_ours(programs, agent, node, meter.wrk, {"tailnet_mode": "tun"}))
        if meter.plan.wants(NGINX):
            try:
                tool = tools.find(NGINX)
                place = Place(programs.private_dir(NGINX), free_port(), f"{agent.ip}:{AGENT_PORT}")
                started = await programs.start_contender(tool, NGINX, contenders.nginx(place), place)
                url = f"http://127.0.0.1:{place.port}"
                await until_answered(f"{url}/", (), within_seconds=ANSWERED_SECONDS)
                found.append(Proxy(NGINX, tool.version, url, [started.child.pid, node.pid], meter.wrk))
            except (tools.Missing, RuntimeError) as error:
                part.missing[NGINX] = str(error)
        await meter.run(part, found)
    return part
