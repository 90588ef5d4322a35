"""The process runtime: agents as plain processes on this machine, each with its own userspace tailscaled.

It does not isolate: an agent can read what its user can read. It needs nothing but Linux, and is the embedded default.

    runtime.py      ProcessRuntime: the client half, what the control plane calls
    host.py         `python -m elizacloud.runtime.process.host`: the process that the agents are children of, so that
                    they outlive the control plane as containers do
    routes.py       the host's HTTP over its unix socket
    instances.py    all instances of a host: one lock each, a record on disk each
    unit.py         a running instance: agent and tailscaled, which live and die together
    membership.py   the unit's tailnet half: join, publish the agent's port, report the address
    volume.py       the state volume: where things are, and what is written there
    wire.py         the values that cross the socket, as JSON
"""

from elizacloud.runtime.process.runtime import ProcessRuntime

__all__ = ["ProcessRuntime"]
