"""How the relay is on its tailnet: userspace, where workers dial through tailscaled's LocalAPI, or TUN, by plain sockets.

Only tailscaled needs CAP_NET_ADMIN for the latter. `up` has it to put the blackhole in place and to pass it on; workers,
the control plane and agents do not get it, unless all run as root.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from elizacloud.relay.dialling.dial import AgentDialer, LocalApiDialer, TcpDialer
from elizacloud.relay.dialling.redial import Redialer
from elizacloud.settings import Settings
from elizacloud.tailnet import blackhole, tunnel
from elizacloud.tailnet.netmap import Netmap


def prepare_machine(settings: Settings) -> None:
    """In `up`, before it starts a child. Raises Misconfigured when this machine or user cannot have TUN mode."""
    if settings.tailnet_mode == "tun":
        tunnel.check_machine()
        tunnel.keep_privilege_to_oneself()


def release_machine(settings: Settings) -> None:
    """In `up`, when all children have ended."""
    if settings.tailnet_mode == "tun":
        blackhole.remove()


@contextmanager
def starting_tailscaled() -> Iterator[None]:
    """Around every start of a tailscaled in TUN mode: somebody may have flushed the routing rules since the last one."""
    blackhole.install()
    with tunnel.privilege_passed_on():
        yield


def check_dialling(settings: Settings) -> None:
    """In `relay` and in each worker, at the start. Raises Misconfigured when something could leak."""
    if settings.tailnet_mode == "tun":
        blackhole.check()
        tunnel.check_binding()


def agent_dialer(
    settings: Settings, netmap: Netmap, local_api: Path
) -> tuple[AgentDialer, AbstractContextManager[None]]:
    """What a worker dials with, and what it has to be in while it does. Raises what `check_dialling` raises."""
    check_dialling(settings)
    if settings.tailnet_mode == "userspace":
        return Redialer(LocalApiDialer(local_api)), nullcontext()
    dialer = TcpDialer(tunnel.Tunnel(netmap))
    return Redialer(dialer), tunnel.device_news(dialer.device_changed)
