"""The relay's own cost: one worker on one core, a loopback upstream, wrk; nginx beside it in the same run when installed.

    uv run python bench/relay_loopback.py [--seconds 5] [--connections 32]

The upstream answers a constant and speaks tailscaled's `dial` first, so no tailnet is in the way. Worker and upstream
are processes of their own. Ratios within one run count; absolute numbers depend on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import uvloop
from pydantic import SecretStr

from elizacloud.auth.tokens import token_sha256
from elizacloud.cipher import Cipher, new_secret_key
from elizacloud.model import Scope, agent_tag
from elizacloud.relay.dial import LocalApiDialer
from elizacloud.relay.link.client import LinkClient
from elizacloud.relay.link.snapshot import SnapshotFile
from elizacloud.relay.metrics import Metrics
from elizacloud.relay.worker import Worker, WorkerSettings
from elizacloud.tailnet.netmap import Netmap
from elizacloud.upstreams import KnownToken, Snapshot, Upstream

AGENT = "kbench0000000001"
TOKEN = "ec_benchbench01_secret"  # noqa: S105 - of this run only
IP = "100.64.0.7"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 12\r\n\r\nhello, relay"
DIALLED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n\r\n"


class ConstantUpstream(asyncio.Protocol):
    """Answers each head with the constant; a dial on a unix socket first becomes a connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.held = b""

    def data_received(self, data: bytes) -> None:
        self.held += data
        while (end := self.held.find(b"\r\n\r\n")) >= 0:
            head, self.held = self.held[:end], self.held[end + 4 :]
            self.transport.write(DIALLED if head.startswith(b"POST /localapi/") else ANSWER)  # type: ignore[attr-defined]


async def serve_upstream(directory: Path, port: int) -> None:
    loop = asyncio.get_running_loop()
    dials = await loop.create_unix_server(ConstantUpstream, directory / "tailscaled")
    server = await loop.create_server(ConstantUpstream, "127.0.0.1", port, backlog=1024)
    await asyncio.wait([loop.create_task(each.serve_forever(), name="upstream") for each in (dials, server)])


async def serve_relay(directory: Path, port: int) -> None:
    netmap = Netmap()
    peer = {"ID": "7", "PublicKey": "nodekey:7", "TailscaleIPs": [IP], "Tags": ["tag:agent", agent_tag(AGENT)]}
    netmap.apply({"InitialStatus": {"TailscaleIPs": ["100.64.0.1"], "Peer": {"nodekey:7": peer}}})
    upstream = Upstream(AGENT, "owner", 1, 1, "cell", "7", IP, SecretStr("eca_bench"))
    token = KnownToken("benchbench01", token_sha256(TOKEN), "owner", frozenset({Scope.OWNER}))
    cipher = Cipher(new_secret_key())
    SnapshotFile(directory / "table", cipher).save(Snapshot("e", 1, (upstream,), (), (token,)), time.time())
    link = LinkClient(directory / "link", directory / "table", cipher, name="bench", offline_grace_seconds=3600)
    settings = WorkerSettings("agents.test", directory / "api", "cell")
    worker = Worker(settings, link, netmap, LocalApiDialer(directory / "tailscaled"), Metrics())
    await worker.run([socket.create_server(("127.0.0.1", port), backlog=1024)])


NGINX = """
worker_processes 1; daemon off; pid {directory}/nginx.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; client_body_temp_path {directory}/b; proxy_temp_path {directory}/p; fastcgi_temp_path {directory}/f;
  uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s; keepalive_requests 1000000;
  upstream agent {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000; }}
  server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://agent; proxy_http_version 1.1;
    proxy_set_header Connection ""; proxy_buffering off; }} }} }}
"""


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """What the process has used so far, its first child included (nginx's worker)."""
    pids = [str(process.pid)]
    pids += Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    ticks = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in pids]
    return sum(int(tick) for pair in ticks for tick in pair) / os.sysconf("SC_CLK_TCK")


def measure(url: str, seconds: int, connections: int, process: subprocess.Popen[bytes]) -> str:
    command = [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        "--latency",
        "-H",
        f"Authorization: Bearer {TOKEN}",
        url,
    ]
    used = cpu_seconds(process)
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    used = cpu_seconds(process) - used
    rate = re.search(r"Requests/sec:\s+(\S+)", out)
    p50, p99 = re.search(r"(?m)^ +50% +(\S+)", out), re.search(r"(?m)^ +99% +(\S+)", out)
    bad = re.search(r"Non-2xx.*", out)
    count = re.search(r"(\d+) requests in", out)
    if count is None or rate is None or p50 is None or p99 is None or bad is not None:
        raise SystemExit(out)
    cpu = used / int(count[1]) * 1e6
    return f"{float(rate[1]):>8.0f} requests/s   p50 {p50[1]:>8}   p99 {p99[1]:>8}   CPU {cpu:5.1f} us a request"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


def until_listening(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise SystemExit(f"nothing listens on port {port}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--serve", choices=["upstream", "relay"], help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--port", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve = serve_upstream if options.serve == "upstream" else serve_relay
        uvloop.run(serve(options.directory, options.port))
        return
    directory = Path(tempfile.mkdtemp(prefix="ec-bench-", dir="/tmp"))
    upstream, relay, nginx = free_port(), free_port(), free_port()
    own = [sys.executable, __file__, "--directory", str(directory)]
    commands = [
        [*own, "--serve", "upstream", "--port", str(upstream)],
        [*own, "--serve", "relay", "--port", str(relay)],
    ]
    ports = [upstream, relay]
    if shutil.which("nginx"):
        (directory / "nginx.conf").write_text(NGINX.format(directory=directory, upstream=upstream, port=nginx))
        commands.append(["nginx", "-c", str(directory / "nginx.conf"), "-p", str(directory)])
        ports.append(nginx)
    children = [subprocess.Popen(command) for command in commands]
    try:
        for port in ports:
            until_listening(port)
        urls = {
            "upstream alone": f"http://127.0.0.1:{upstream}/",
            "relay": f"http://127.0.0.1:{relay}/api/relay/{AGENT}/",
        }
        if len(ports) == 3:
            urls["nginx"] = f"http://127.0.0.1:{nginx}/"
        for connections in (1, options.connections):
            for (name, url), process in zip(urls.items(), children, strict=True):
                print(f"{name:<15} {connections:>3} connections {measure(url, options.seconds, connections, process)}")
    finally:
        for child in children:
            child.send_signal(signal.SIGTERM)
        for child in children:
            child.wait(10)
        shutil.rmtree(directory)


if __name__ == "__main__":
    main()
