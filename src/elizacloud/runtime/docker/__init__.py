"""The Docker runtime: an agent's unmodified image beside a sidecar of ours that holds its tailscaled; or one image with both.

The sidecar (container/Dockerfile.sidecar) brings a network and a process namespace, and the agent's container shares
both. So the agent is reached through the tailnet on its own loopback and needs no open port, its orphans are reaped by
the sidecar's first process, and it ends when the sidecar ends: the kernel sees to that, with no help from us.

    runtime.py     DockerRuntime: the calls of runtime/protocol.py
    units.py       find units by label, see them, end them
    watching.py    every change, out of Docker's events
    making.py      make volumes, network and containers
    unit.py        what the containers of one instance are together (pure)
    configs.py     how containers are made, and how they are confined (pure)
    handed.py      what is handed over by standard input (pure)
    labels.py      labels, names and refs (pure)
    images.py      which image is run: allowed, pulled, pinned by its id
    firewall.py    packet filters on the host: what agents reach there, and who reaches them
    logs.py        a container's output, line by line
    usage.py       what an instance uses
    building.py    build the sidecar's image, and wrap others
    host.py        a Docker host before any agent runs on it
    engine.py      the Engine API by aiodocker: deadlines, errors as ours
"""

from elizacloud.runtime.docker.configs import DockerOptions
from elizacloud.runtime.docker.images import PullPolicy
from elizacloud.runtime.docker.runtime import DockerRuntime

__all__ = ["DockerOptions", "DockerRuntime", "PullPolicy"]
