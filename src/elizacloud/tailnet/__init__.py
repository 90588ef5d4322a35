"""Everything that speaks to a tailscaled: its command line, its LocalAPI, joining, the netmap, dialling a peer.

tailscaled.py  the command line and environment of a tailscaled
localapi.py    the HTTP client of its LocalAPI socket
bus.py         the events of its bus, as plain data
join.py        log in without the CLI, and tell a dead pre-auth key from an unreachable server
netmap.py      who is on the tailnet, folded from the bus' events (pure)
watcher.py     keeps one netmap current, and notices a tailscaled that hangs
feed.py        one netmap, told to every worker of a host
identity.py    is the peer at this address the agent we mean (pure)
dialer.py      a TCP connection to a peer through the LocalAPI, as bytes
tunnel.py      TUN mode: the device of a tailscaled, and what this machine needs for one
blackhole.py   TUN mode: no tailnet address is sought in the host's own network
"""

from elizacloud.tailnet.dialer import Outcome, dial, dial_request, parse_dial_answer
from elizacloud.tailnet.identity import mismatch
from elizacloud.tailnet.join import Joined, JoinPrefs, KeyRefused, join
from elizacloud.tailnet.localapi import LocalApi
from elizacloud.tailnet.netmap import Netmap, Peer, PeerChange
from elizacloud.tailnet.path import find_path, find_paths
from elizacloud.tailnet.tailscaled import Tailscaled
from elizacloud.tailnet.watcher import NetmapWatcher

__all__ = [
    "JoinPrefs",
    "Joined",
    "KeyRefused",
    "LocalApi",
    "Netmap",
    "NetmapWatcher",
    "Outcome",
    "Peer",
    "PeerChange",
    "Tailscaled",
    "dial",
    "dial_request",
    "find_path",
    "find_paths",
    "join",
    "mismatch",
    "parse_dial_answer",
]
