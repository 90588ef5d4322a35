"""Part 1: the relays alone. The upstream is on loopback; ours gets there by a `dial` that the upstream answers itself."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from bench.relay import contenders, ours, tools
from bench.relay.contenders import Place
from bench.relay.figures import ALONE, INTERPRETED, LOGGING, OURS, Part
from bench.relay.load import ROOT
from bench.relay.programs import Programs, free_port
from bench.relay.rounds import Contender, Meter, Proxy
from bench.relay.upstream import IP, NODE_ID
from elizacloud import __version__
from elizacloud.relay.compiled import COMPILED
from elizacloud.settings import child_environment


async def measure(programs: Programs, meter: Meter) -> Part:
    part = Part("loopback")
    port, local_api = await start_upstream(programs)
    found: list[Contender] = []
    base = Proxy(OURS, "", "", (), meter.wrk, ours.HEADERS)
    for name, settings in ((OURS, ours.SILENT), (INTERPRETED, ours.SILENT), (LOGGING, {})):
        if not meter.plan.wants(name) or (name == INTERPRETED and not COMPILED):
            continue
        start = partial(ours.start, programs, name, tailscaled=local_api, node_id=NODE_ID, ip=IP, settings=settings)
        relay = await start(interpreted=name == INTERPRETED)
        version = __version__ if name == INTERPRETED else ours.VERSION
        url = f"http://127.0.0.1:{relay.port}{ours.PATH}"
        proxy = replace(base, name=name, version=version, url=url, pids=[relay.pid])
        found.append(proxy if name == OURS else replace(proxy, only=(32,)))
    for name, command in contenders.LOOPBACK.items():
        if not meter.plan.wants(name):
            continue
        try:
            tool = tools.find(name)
            place = Place(programs.private_dir(name), free_port(), f"127.0.0.1:{port}")
            started = await programs.start_contender(tool, name, command(place), place)
        except (tools.Missing, RuntimeError) as error:
            part.missing[name] = str(error)
            continue
        found.append(Proxy(name, tool.version, f"http://127.0.0.1:{place.port}", [started.child.pid], meter.wrk))
    if meter.plan.wants(ALONE):
        found.append(Proxy(ALONE, "", f"http://127.0.0.1:{port}", [], meter.wrk))
    await meter.run(part, found)
    return part


async def start_upstream(programs: Programs) -> tuple[int, Path]:
    """The port of the constant upstream, and the socket where it plays tailscaled."""
    port, local_api = free_port(), programs.private_dir("upstream") / "tailscaled.sock"
    argv = (sys.executable, "-m", "bench.relay.upstream", str(port), local_api)
    environment = {**child_environment(), "PYTHONPATH": str(ROOT)}
    with programs.outside():
        started = programs.start(argv, "upstream", cores=programs.cores.upstream, env=environment)
    await started.until_listening(local_api)
    return port, local_api
