"""Network namespaces, for what needs a TUN device, routes or a firewall of its own: this machine's network stays as it is.

A namespace here has no name. It lives as long as its descriptor, a thread or a process in it, and takes its devices with it,
so that a crash leaves nothing behind. To look inside one while it lives: `nsenter --net=/proc/PID/ns/net ip addr`.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

CLONE_NEWNET = 0x40000000
OWN = "/proc/thread-self/ns/net"
TUN_DEVICE = Path("/dev/net/tun")

INSIDE_IP, OUTSIDE_IP = "10.213.0.2", "10.213.0.1"
"""The two ends of the wire of `namespace_with_a_way_out`."""

_libc = ctypes.CDLL(None, use_errno=True)


def why_not() -> str | None:
    """What is missing here for namespaces with TUN devices, as a reason to skip; None when nothing is."""
    try:
        os.close(os.open(TUN_DEVICE, os.O_RDWR))
    except OSError as error:
        return f"{TUN_DEVICE} cannot be opened ({error.strerror})"
    try:
        with new_namespace():
            return None
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespace can be made: it needs root, or CAP_SYS_ADMIN and CAP_NET_ADMIN, and iproute2 ({error})"


class Namespace:
    """One network namespace, kept alive by a descriptor."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """This thread is in it: sockets that it makes and processes that it starts are, too, also after the block."""
        before = os.open(OWN, os.O_RDONLY)
        try:
            _switch(self.descriptor)
            try:
                yield
            finally:
                _switch(before)
        finally:
            os.close(before)

    def run(self, *argv: str) -> str:
        """What a command prints that runs in it. Raises subprocess.CalledProcessError."""
        with self.entered():
            return subprocess.run(argv, check=True, text=True, stdout=subprocess.PIPE).stdout


@contextlib.contextmanager
def new_namespace() -> Iterator[Namespace]:
    """An empty one, but for its loopback. Raises OSError without the privilege."""
    before = os.open(OWN, os.O_RDONLY)
    try:
        if _libc.unshare(CLONE_NEWNET) != 0:
            raise _error()
        descriptor = os.open(OWN, os.O_RDONLY)
        _switch(before)
    finally:
        os.close(before)
    namespace = Namespace(descriptor)
    try:
        namespace.run("ip", "link", "set", "lo", "up")
        yield namespace
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def namespace_with_a_way_out() -> Iterator[tuple[Namespace, Namespace]]:
    """Two, with a wire between them: the first one's default routes lead to the second, where nothing is behind.

    tailscaled joins no tailnet from a namespace that has loopback only; with the wire it does.
    """
    with new_namespace() as inside, new_namespace() as outside:
        ends = ((inside, INSIDE_IP, "fd00:213::2"), (outside, OUTSIDE_IP, "fd00:213::1"))
        inside.run("ip", "link", "add", "inside", "type", "veth", "peer", "outside", "netns", _path(outside))
        for (namespace, ipv4, ipv6), device in zip(ends, ("inside", "outside"), strict=True):
            namespace.run("ip", "addr", "add", f"{ipv4}/24", "dev", device)
            namespace.run("ip", "addr", "add", f"{ipv6}/64", "dev", device, "nodad")
            namespace.run("ip", "link", "set", device, "up")
        inside.run("ip", "route", "add", "default", "via", OUTSIDE_IP)
        inside.run("ip", "route", "add", "default", "via", "fd00:213::1")
        yield inside, outside


def _path(namespace: Namespace) -> str:
    return f"/proc/{os.getpid()}/fd/{namespace.descriptor}"


def _switch(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise _error()


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))
