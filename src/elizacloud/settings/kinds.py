"""The kinds of values that settings have, and how each is checked: a wrong one is told in one sentence."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode


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


def _named_urls(value: object) -> object:
    """One text of name=url, with commas or blanks between, as variables have it, becomes a mapping."""
    if not isinstance(value, str):
        return value
    hosts: dict[str, str] = {}
    for word in value.replace(",", " ").split():
        name, is_named, url = word.partition("=")
        if not is_named:
            raise ValueError(f"{word!r} has no name: use name=url, as in big=tcp://10.0.0.5:2376")
        if name in hosts:
            raise ValueError(f"two hosts have the name {name!r}: give each its own")
        hosts[name] = url
    return hosts


def _checked_docker_hosts(hosts: dict[str, str]) -> dict[str, str]:
    for name, url in hosts.items():
        if not _HOST_ID.fullmatch(name):
            raise ValueError(f"{name!r} is no name for a host: use at most 63 of a-z, 0-9 and -, with no - at an end")
        if name == _THE_ONE_HOST:
            raise ValueError(f"{name!r} is the host that docker_url leads to: choose another name")
        if not _DOCKER_URL.fullmatch(url):
            raise ValueError(
                f"{url!r} (of {name}) is no Docker host: use unix:///path, tcp://host:2376 or ssh://user@host"
            )
    if len(set(hosts.values())) < len(hosts):
        raise ValueError("two hosts have the same URL: one Docker is one host")
    return hosts


_HOST_ID = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_THE_ONE_HOST = "local"
"""model.DEFAULT_HOST_ID."""
_DOCKER_URL = re.compile(r"unix:///\S+|(tcp|http|https|ssh)://[^/\s]\S*")

Secret = Annotated[SecretStr, BeforeValidator(_read_secret)]
HeadscaleUrl = Annotated[str, AfterValidator(_checked_headscale_url)]
Url = Annotated[str, AfterValidator(_checked_url)]
HostPort = Annotated[str, AfterValidator(_checked_host_port)]
Origins = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_checked_origins)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)]
Networks = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_checked_networks)]
DockerHosts = Annotated[dict[str, str], NoDecode, BeforeValidator(_named_urls), AfterValidator(_checked_docker_hosts)]
Port = Annotated[int, Field(ge=0, le=65535)]
Count = Annotated[int, Field(gt=0)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
