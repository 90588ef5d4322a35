"""The relay beside the field: same upstream, same core, same load, one run; `make bench-relay`.

__main__.py    the command: which parts, the rounds, what is printed and saved
loopback.py    part 1: no tailnet, the relays alone
userspace.py   part 2: a real tailnet in userspace, beside Caddy with the tailscale plugin
tailnet.py     that tailnet: control server, the agent's and the relay's tailscaled
contenders.py  how each of the others is configured
ours.py        `elizacloud relay` with a table of one agent
tun.py         part 3: TUN mode beside nginx over the same tailscaled, in namespaces of the run
bare.py        the least there is: a client that keeps connections of LocalAPI `dial` open
upstream.py    the agent: a constant answer, a large body, and for part 1 a LocalAPI that dials it
programs.py    what runs, on which core, and its end
load.py        wrk, one large body, CPU time
rounds.py      who is measured when: interleaved, so that noise hits all alike
tools.py       where the programs are, and why one is missing
figures.py     what was measured, medians, ratios, targets (pure)
saved.py       the figures as JSON (pure)
table.py       how it is shown (pure)
"""
