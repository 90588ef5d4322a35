"""Child processes: spawn, die with the parent, restart with backoff, log capture. Linux only.

    child.py      one child: its own session and process group, ended whole, never a zombie or a leaked descriptor
    supervise.py  one child for ever: started again after each exit, ever later (backoff.py)
    logs.py       what a child printed: a bounded file, a tail for messages, a stream for whoever follows
    usage.py      what processes use, and all that they started
    leftovers.py  what a `kill -9` left behind: found by a mark in its environment, ended

Three things end a child: `Child.stop()`, the kernel when its parent dies (die_with_parent.py), and, for what both
missed, the sweep in leftovers.py. Whoever spawns a child stops it, also one that has exited, since `stop()` also
ends what it left.
"""

from elizacloud.processes.backoff import Backoff
from elizacloud.processes.child import Child, Exit, LineSink, spawn
from elizacloud.processes.errors import SpawnFailed
from elizacloud.processes.leftovers import end_leftovers
from elizacloud.processes.logs import LogFile
from elizacloud.processes.supervise import Exited, Hook, Process, Started, supervise

__all__ = [
    "Backoff",
    "Child",
    "Exit",
    "Exited",
    "Hook",
    "LineSink",
    "LogFile",
    "Process",
    "SpawnFailed",
    "Started",
    "end_leftovers",
    "spawn",
    "supervise",
]
