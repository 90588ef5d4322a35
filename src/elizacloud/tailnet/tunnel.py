"""TUN mode: the network device of a relay's tailscaled, through which plain sockets reach peers, and what it takes to have one.

A socket that is bound to a device sends and receives by that device alone, whatever the routes say: for an address without
a peer tailscaled drops the packet, and with the device gone the kernel does. So no dial can leave by the host's network.
Linux lets every user bind a socket since 5.7; only tailscaled needs CAP_NET_ADMIN.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import ipaddress
import itertools
import os
import re
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

from elizacloud.errors import Misconfigured, TailnetUnavailable
from elizacloud.tailnet import blackhole
from elizacloud.tailnet.netmap import Netmap

DEVICE = "tailscale-ec"
"""tailscaled never takes a device whose name begins so for a way to the internet (net/netmon/state.go)."""

TUN = Path("/dev/net/tun")

_GET_ADDRESS = 0x8915  # SIOCGIFADDR, netdevice(7)
_LINK_NEWS = 1  # RTMGRP_LINK, rtnetlink(7)
_NET_ADMIN = 12
_AMBIENT, _RAISE, _CLEAR_ALL = 47, 2, 4  # PR_CAP_AMBIENT, prctl(2)


class Tunnel:
    """The device that has this machine's own tailnet address, as the netmap says it."""

    def __init__(self, netmap: Netmap) -> None:
        self._netmap = netmap
        self._last = DEVICE

    def bind(self, made: socket.socket) -> None:
        """Let this socket use the tunnel and nothing else. Raises TailnetUnavailable when there is none now."""
        device = self._device()
        if device is None:
            raise TailnetUnavailable(
                "cannot reach the tailnet: no network device has the relay's address; does its tailscaled run with a TUN device?",
                retry_after_seconds=2,
            )
        made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())

    @property
    def index(self) -> int | None:
        """Another number when the device is another one, also under the same name; None without one."""
        device = self._device()
        try:
            return None if device is None else socket.if_nametoindex(device)
        except OSError:
            return None

    def _device(self) -> str | None:
        own = self._netmap.self_ips
        for device, ip in _addresses(first=self._last):
            if ip in own:
                self._last = device
                return device
        return None


@contextlib.contextmanager
def device_news(heard: Callable[[], None]) -> Iterator[None]:
    """Call `heard` whenever a network device of this machine comes, goes or changes."""
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    ) as kernel:
        kernel.bind((0, _LINK_NEWS))

        def read() -> None:
            with contextlib.suppress(OSError):  # too much news for the socket's buffer is news, too
                while kernel.recv(1 << 16):
                    pass
            heard()

        loop = asyncio.get_running_loop()
        loop.add_reader(kernel.fileno(), read)
        try:
            yield
        finally:
            loop.remove_reader(kernel.fileno())


def check_machine() -> None:
    """Raise Misconfigured, in one sentence, unless a tailscaled started here could have a TUN device for a tailnet."""
    try:
        os.close(os.open(TUN, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise Misconfigured(
            f"cannot use TUN mode: {TUN} cannot be opened ({error.strerror}); give this user access to it "
            "(containers: --device /dev/net/tun), or use tailnet_mode userspace"
        ) from error
    if not _has_net_admin():
        raise Misconfigured(
            "cannot use TUN mode: this process lacks CAP_NET_ADMIN; run it as root or grant it (systemd: "
            "AmbientCapabilities=CAP_NET_ADMIN, containers: --cap-add NET_ADMIN), or use tailnet_mode userspace"
        )
    for device, ip in _addresses():
        if device != DEVICE and ipaddress.ip_address(ip) in blackhole.PREFIXES[0]:
            raise Misconfigured(
                f"cannot use TUN mode: {device} has {ip}, an address of the tailnet's range, so that the two would be confused; "
                "stop what made it (another tailscaled?), or use tailnet_mode userspace"
            )


def check_binding() -> None:
    """Raise Misconfigured unless this process may bind sockets to devices."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
        except OSError as error:
            raise Misconfigured(
                f"cannot use TUN mode: the kernel lets this process bind no socket to a device ({error.strerror}); "
                "use Linux 5.7 or newer, or tailnet_mode userspace"
            ) from error


def keep_privilege_to_oneself() -> None:
    """Children get CAP_NET_ADMIN from now on only inside `privilege_passed_on`. For root nothing changes."""
    _ambient(_CLEAR_ALL, 0)


@contextlib.contextmanager
def privilege_passed_on() -> Iterator[None]:
    """A process that this thread starts inside the block gets CAP_NET_ADMIN. Raises Misconfigured when it cannot."""
    if os.geteuid() == 0:
        yield
        return
    _ambient(_RAISE, _NET_ADMIN)
    try:
        yield
    finally:
        _ambient(_CLEAR_ALL, 0)


def _ambient(change: int, capability: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_AMBIENT, *map(ctypes.c_ulong, (change, capability, 0, 0))) != 0:
        raise Misconfigured(
            f"cannot use TUN mode: CAP_NET_ADMIN cannot be passed on to tailscaled ({os.strerror(ctypes.get_errno())}); "
            "make it inheritable, as systemd's AmbientCapabilities does"
        )


def _has_net_admin() -> bool:
    effective = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text(), re.MULTILINE)
    return effective is not None and bool(int(effective[1], 16) >> _NET_ADMIN & 1)


def _addresses(*, first: str = DEVICE) -> Iterator[tuple[str, str]]:
    """Each network device with its first IPv4 address; a TUN device has one. A machine may have hundreds: begin with this."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for device in itertools.chain([first], _names()):
            request = struct.pack("16s24x", device.encode())
            with contextlib.suppress(OSError):  # it has none, or is gone by now
                yield device, socket.inet_ntoa(fcntl.ioctl(asking, _GET_ADDRESS, request)[20:24])


def _names() -> Iterator[str]:
    yield from (name for _, name in socket.if_nameindex())
