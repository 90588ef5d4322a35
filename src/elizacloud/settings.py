"""Every setting, with its default, unit and reason. Read once, from flags, ELIZACLOUD_* variables and one TOML file.

Precedence: flag, environment variable, TOML file, default. A secret may be given as `file:/path`. Only this module
reads the environment. A wrong value is one sentence that says what to change (Misconfigured).
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import platformdirs
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from elizacloud.errors import Misconfigured

ENV_PREFIX = "ELIZACLOUD_"
CONFIG_FILE_VARIABLE = "ELIZACLOUD_CONFIG"
_INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "SSL_CERT_FILE", "SSL_CERT_DIR")


def _read_secret(value: object) -> object:
    """`file:/path` becomes the file's content, without the newline at its end."""
    text = value.get_secret_value() if isinstance(value, SecretStr) else value
    if isinstance(text, str) and text.startswith("file:"):
        path = Path(text.removeprefix("file:"))
        try:
            return path.read_text().rstrip("\n")
        except OSError as error:
            raise ValueError(
                f"the file {path} cannot be read ({error.strerror}): create it or correct the path"
            ) from error
    return value


def is_loopback(host: str) -> bool:
    """True for localhost and for literal loopback addresses. Names are not looked up."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def child_environment(
    settings: Mapping[str, str] | None = None, *, without: Collection[str] = (), config: Path | None = None
) -> dict[str, str]:
    """The environment of a process of ours: what every program needs, and with `settings` also these and our own.

    Of our own variables only those are passed on that are settings, so never a person's token, and none that is named in
    `without`, where the secrets belong that the process does not need. Without `settings` none is passed on at all.
    `config` is the TOML file to read, where it was named by a flag.
    """
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    if settings is not None:
        variables = {name: f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields if name not in without}
        passed_on = (CONFIG_FILE_VARIABLE, *variables.values())
        environment |= {name: os.environ[name] for name in passed_on if name in os.environ}
        environment |= {variables[name]: value for name, value in settings.items() if name in variables}
    if config is not None:
        environment[CONFIG_FILE_VARIABLE] = str(config.absolute())
    return environment


def is_local_address(host: str) -> bool:
    """True for localhost and for literal loopback, private and link-local addresses. Names are not looked up."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return address.is_loopback or address.is_private or address.is_link_local


def _checked_headscale_url(url: str | None) -> str | None:
    """https anywhere; plain http only to localhost or a literal private address.

    With an `http://name` a tailscaled never reconnects after a restart of Headscale, because it then forces port 443
    (control/ts2021/client.go, tailscale v1.102.3), and over the open internet the traffic would be readable.
    """
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not a URL: use https://headscale.example.com or http://127.0.0.1:8080")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValueError("the URL must have no user, query or fragment: give the API key in its own setting")
    if parts.scheme == "http" and not is_local_address(parts.hostname):
        raise ValueError(f"plain http to {parts.hostname} is refused: use https, or a loopback or private IP address")
    return url.rstrip("/")


def _checked_url(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not a URL: use https://host or http://host:port")
    return url.rstrip("/")


def _checked_host_port(text: str) -> str:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"{text!r} is not host:port: use 127.0.0.1:8421 or [::1]:8421")
    return text


def _listed(value: object) -> object:
    """One text with commas or blanks between its members, as variables have it, becomes a list."""
    return value.replace(",", " ").split() if isinstance(value, str) else value


def _checked_origins(origins: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(_checked_origin(origin) for origin in origins)


def _checked_origin(text: str) -> str:
    """As browsers write it: lower case, without the default port, nothing after the host."""
    parts = urlsplit(text.lower().rstrip("/"))
    try:
        port = parts.port
    except ValueError:
        port = -1
    plain = parts.scheme in ("http", "https") and parts.hostname and not (parts.username or parts.query or parts.path)
    if not plain or parts.fragment or "*" in text or not text.isascii() or (port is not None and port <= 0):
        raise ValueError(f"{text!r} is not an origin: use https://app.example.com, exactly, without path or wildcard")
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    return f"{parts.scheme}://{host}" + ("" if port in (None, default) else f":{port}")


def _checked_networks(networks: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(str(ipaddress.ip_network(network)) for network in networks)
    except ValueError as error:
        raise ValueError(f"{error}: use addresses or networks as 10.0.0.5 or 10.0.0.0/8") from None


Secret = Annotated[SecretStr, BeforeValidator(_read_secret)]
HeadscaleUrl = Annotated[str, AfterValidator(_checked_headscale_url)]
Url = Annotated[str, AfterValidator(_checked_url)]
HostPort = Annotated[str, AfterValidator(_checked_host_port)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_checked_origins)]
Networks = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_checked_networks)]
Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, le=86400)]


class Settings(BaseSettings):
    """The settings of every process of elizacloud; each one uses what it needs."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True, env_ignore_empty=True)

    data_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_data_dir("elizacloud")),
        description="Where all state lives (0700). One control plane at a time holds it.",
    )
    cache_dir: Path = Field(
        default_factory=lambda: Path(platformdirs.user_cache_dir("elizacloud")),
        description="Where downloaded and built binaries are kept; safe to delete.",
    )
    host: str = Field("127.0.0.1", description="Address that the front door (the relay) listens on.")
    port: Port = Field(8420, description="Port of the front door; 0 takes a free one.")
    public_url: Url | None = Field(
        None, description="How clients reach the front door, when another proxy stands before it."
    )
    relay_domain: str = Field(
        "localhost", description="Domain of the browser front: each agent is {agentId}.{relay_domain}."
    )
    runtime: Literal["process"] = Field("process", description="Where agents run.")

    headscale: str = Field(
        "auto",
        description="auto (Headscale if it can be had, else devcontrol), devcontrol, a binary's path, or a URL.",
    )
    headscale_api_url: HeadscaleUrl | None = Field(None, description="Where the control plane reaches Headscale's API.")
    headscale_api_key: Secret | None = Field(None, description="Headscale's API key; file:/path is accepted.")
    headscale_join_url: HeadscaleUrl | None = Field(
        None, description="The URL that agents join at: Headscale's server_url."
    )
    report_url: Url | None = Field(None, description="The URL that containers report to; serves /containers/* only.")
    report_listen: HostPort | None = Field(
        None, description="host:port where the control plane listens for these reports."
    )

    database_url: Secret | None = Field(
        None, description="postgresql://user:password@host/name; without it, SQLite in the data dir."
    )
    operator_token: Secret | None = Field(
        None, description="A service token for platforms; made at first start if not given."
    )
    secret_key: Secret | None = Field(
        None, description="Encrypts secrets at rest (base64, 32 bytes); made at first start if not given."
    )
    api_socket: Path | None = Field(None, description="Unix socket of the API; in the data dir unless given.")
    link_socket: Path | None = Field(None, description="Unix socket of the link between control plane and relays.")
    tailscaled_socket: Path | None = Field(
        None, description="LocalAPI socket of the relay's tailscaled, in a 0700 directory."
    )
    listen_fd: int | None = Field(
        None, description="An inherited listening socket for the front door, instead of host and port."
    )
    devcontrol_debug_listen: HostPort | None = Field(
        None, description="Loopback host:port of devcontrol's fault switches; off."
    )
    process_host_socket: Path | None = Field(None, description="Unix socket of the process runtime's host.")

    headscale_bin: Path | None = Field(None, description="A headscale binary to use.")
    headscale_sha256: str | None = Field(
        None, description="Expected SHA-256 of a downloaded headscale, for versions that have no pin."
    )
    tailscaled_bin: Path | None = Field(None, description="A tailscaled binary to use.")
    devcontrol_bin: Path | None = Field(None, description="A devcontrol binary to use.")

    create_wait_seconds: Seconds = Field(
        30, description="How long POST /api/v1/agents waits for the join before it answers 202."
    )
    key_lifetime_seconds: Seconds = Field(
        600, description="How long a pre-auth key can be used; it is single-use in any case."
    )
    poll_seconds: Seconds = Field(
        15, description="The slow poll behind events that say a node joined or an agent got ready."
    )
    headers_timeout_seconds: Seconds = Field(
        15, description="Relay: longest time for a client to send its request's headers."
    )
    dial_timeout_seconds: Seconds = Field(5, description="Relay: longest time to connect to an agent.")
    first_byte_timeout_seconds: Seconds = Field(60, description="Relay: longest time until the agent's answer begins.")
    wake_hold_seconds: Seconds = Field(
        8, description="Relay: longest time a request is held for an agent that is coming up."
    )
    offline_grace_seconds: Seconds = Field(
        3600, description="Relay: how long known tokens are honoured without a control plane."
    )
    tls_certificate_file: Path | None = Field(
        None,
        description="Relay: PEM chain of the front door's certificate: it then speaks TLS itself. Renewed files are seen.",
    )
    tls_key_file: Path | None = Field(None, description="Relay: PEM key of that certificate, not encrypted.")
    cors_origins: Origins = Field(
        default_factory=tuple,
        description="Relay: origins whose pages may call API and agents, as https://app.example.com, with commas between.",
    )
    trusted_proxies: Networks = Field(
        default_factory=tuple,
        description="Relay: addresses or networks of proxies in front, whose X-Forwarded-* and X-Request-Id count.",
    )
    access_log: float = Field(
        1, ge=0, le=1, description="Relay: share of requests with a line in the access log: 1 all, 0.01 some, 0 none."
    )
    agent_in_flight: Count = Field(1000, description="Relay: most requests in flight for one agent, in each worker.")
    owner_in_flight: Count = Field(2000, description="Relay: the same for all agents of one owner.")
    agent_streams: Count = Field(
        2000, description="Relay: most WebSockets and event streams open for one agent, in each worker."
    )
    owner_streams: Count = Field(10_000, description="Relay: the same for all agents of one owner.")
    owner_requests_per_second: float | None = Field(
        None, gt=0, description="Relay: requests a second to one owner's agents, in each worker; no limit unless given."
    )
    connections_per_address: Count = Field(
        1000, description="Relay: most connections of one client address (IPv6: /64), in each worker; not of a proxy's."
    )
    dials_per_agent: Count = Field(
        32, description="Relay: most dials to one agent at a time; who waits shares their outcome."
    )
    body_timeout_seconds: Seconds = Field(
        30, description="Relay: while a request's body is awaited, the time in which a least amount of it must come."
    )
    body_bytes_per_second: int = Field(64, ge=0, description="Relay: that least amount, as an average over that time.")
    max_body_bytes: Count | None = Field(
        None, description="Relay: longest body of a request; no limit unless given, since bodies are never held."
    )
    drain_seconds: Seconds = Field(
        20, description="How long in-flight requests may take to finish when a process stops."
    )

    metrics_listen: HostPort | None = Field(
        None, description="host:port for this process's Prometheus metrics; off unless given."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe log line written."
    )
    log_json: bool | None = Field(None, description="JSON logs; unset means JSON unless on a terminal.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, env_settings)


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings, and for each field where its value came from: flag, environment, the file's path, or default."""

    settings: Settings
    sources: Mapping[str, str]

    def shown(self) -> dict[str, tuple[str, str]]:
        """Each setting's value for people, secrets masked, and its source."""
        return {
            name: (_show(getattr(self.settings, name)), self.sources.get(name, "default"))
            for name in Settings.model_fields
        }


def _show(value: Any) -> str:
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)


def config_file() -> Path | None:
    """The TOML file to read: $ELIZACLOUD_CONFIG, or the user's own if it exists."""
    if named := os.environ.get(CONFIG_FILE_VARIABLE):
        return Path(named)
    own = Path(platformdirs.user_config_dir("elizacloud")) / "elizacloud.toml"
    return own if own.is_file() else None


def load_settings(flags: Mapping[str, Any] | None = None, *, file: Path | None = None) -> Loaded:
    """Read all sources; a flag of None counts as not given. Raises Misconfigured with one sentence a wrong value."""
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    path = file or config_file()
    from_file: dict[str, Any] = {}
    if path is not None:
        if not path.is_file():
            raise Misconfigured(
                f"cannot read the settings file {path}: it does not exist; create it or unset {CONFIG_FILE_VARIABLE}"
            )
        try:
            from_file = dict(TomlConfigSettingsSource(Settings, toml_file=path)())
        except ValueError as error:
            raise Misconfigured(f"cannot read the settings file {path}: {error}; correct its TOML") from error
    from_environment = EnvSettingsSource(Settings)()
    sources = (
        dict.fromkeys(from_file, str(path))
        | dict.fromkeys(from_environment, "environment")
        | dict.fromkeys(given, "flag")
    )
    try:
        settings = Settings(**{**from_file, **from_environment, **given})
    except ValidationError as error:
        sentences = "; ".join(
            _sentence(detail, sources) for detail in error.errors(include_url=False, include_input=False)
        )
        raise Misconfigured(f"cannot use the settings: {sentences}") from None
    return Loaded(settings, sources)


def _sentence(detail: Any, sources: Mapping[str, str]) -> str:
    name = str(detail["loc"][0]) if detail["loc"] else "settings"
    if detail["type"] == "extra_forbidden":
        return f"{name} (from {sources.get(name, 'a source')}) is not a setting; `elizacloud settings` lists them all"
    source = sources.get(name, "default")
    where = f"{ENV_PREFIX}{name.upper()}" if source == "environment" else f"{name} (from {source})"
    reason = str(detail["msg"]).removeprefix("Value error, ")
    return f"{where}: {reason[0].lower() + reason[1:]}"
