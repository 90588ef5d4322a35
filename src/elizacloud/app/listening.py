"""Sockets and addresses that outlive the process behind them."""

from __future__ import annotations

import errno
import json
import socket

import structlog

from elizacloud.app.data_dir import DataDir, write_private
from elizacloud.errors import Misconfigured

BACKLOG = 4096

log = structlog.get_logger()


def listening_socket(host: str, port: int, *, setting: str = "--host or --port") -> socket.socket:
    """A listening TCP socket that children may inherit. Misconfigured, with the setting to change, when it cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _look_for_clients_that_vanished(listener)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        if getattr(error, "errno", None) == errno.EADDRINUSE:
            raise Misconfigured(
                f"cannot listen on {host}:{port}: another program has that port; stop it or give another {setting}",
                code="port_in_use",
            ) from error
        raise Misconfigured(f"cannot listen on {host}:{port}: {error}; give another {setting}") from error
    listener.set_inheritable(True)
    listener.setblocking(False)
    return listener


def _look_for_clients_that_vanished(listener: socket.socket) -> None:
    """Find them within two minutes, also on silent streams. Connections inherit it from their listener (tcp(7))."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    # No TCP_USER_TIMEOUT: that also ends a client that is there, but has not read for as long.


def url_of(listener: socket.socket, *, tls: bool = False) -> str:
    host, port = listener.getsockname()[:2]
    return f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def remembered_report_address(data: DataDir, host: str = "127.0.0.1") -> str:
    """host:port where this data dir's control plane hears its containers: the same at every start.

    Another port is taken, for good, when somebody else has it now; agents of the process runtime learn it as they start.
    """
    file = data.path / "report-address.json"
    try:
        port = int(json.loads(file.read_bytes())["port"])
    except FileNotFoundError:
        port = 0
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("report address is not readable, another is chosen", path=str(file), reason=str(error))
        port = 0
    try:
        taken = _free_port(host, port)
    except (OSError, OverflowError):
        taken = _free_port(host, 0)
    if taken != port:
        write_private(file, json.dumps({"port": taken}) + "\n")
    return f"{host}:{taken}"


def _free_port(host: str, port: int) -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])
