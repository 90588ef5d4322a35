"""Where and how agents run on Docker. Sizes are what an agent gets; its owner may ask for others, up to the `most`."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings

from elizacloud.settings.kinds import DockerHosts, Networks, Port, Words

GIB = 1024**3


class DockerSettings(BaseSettings):
    docker_url: str = Field(
        "unix:///var/run/docker.sock",
        pattern=r"^(unix|tcp|http|https|ssh)://",
        description="Docker: the Engine, as DOCKER_HOST has it; TLS as DOCKER_TLS_VERIFY and DOCKER_CERT_PATH say.",
    )
    docker_hosts: DockerHosts = Field(
        default_factory=dict,
        description="Docker: more hosts beside `docker_url` (the host `local`), each by the name that it keeps, as "
        "`big=tcp://10.0.0.5:2376`, with commas between; in TOML a table. An agent stays on its host.",
    )
    docker_sidecar_image: str = Field(
        "elizacloud-sidecar",
        description="Docker: the sidecar's image on each host; `elizacloud image sidecar` builds it on that of `docker_url`.",
    )
    docker_agent_image: str = Field("milaidy:latest", description="Docker: the image of agents that name none.")
    docker_images_allowed: Words = Field(
        ("*",), description="Docker: patterns of images that owners may name, with commas between."
    )
    docker_pull: Literal["missing", "always", "never"] = Field(
        "missing", description="Docker: when an agent's image is pulled. A digest is pulled once."
    )
    docker_memory_bytes: int = Field(GIB, ge=16 * 1024**2, description="Docker: memory of an agent.")
    docker_cpus: float = Field(1.0, ge=0.01, description="Docker: CPUs of an agent.")
    docker_pids: int = Field(256, ge=1, description="Docker: processes of an agent.")
    docker_most_memory_bytes: int = Field(
        8 * GIB, ge=16 * 1024**2, description="Docker: the most memory that an owner may ask for."
    )
    docker_most_cpus: float = Field(4.0, ge=0.01, description="Docker: the most CPUs that an owner may ask for.")
    docker_most_pids: int = Field(4096, ge=1, description="Docker: the most processes that an owner may ask for.")
    docker_embedded_images: Words = Field(
        (),
        description="Docker: patterns of images that join the tailnet by themselves and get no sidecar; `elizacloud image wrap` "
        "makes one.",
    )
    docker_firewall: bool = Field(
        True,
        description="Docker: set packet filters on the host, so that agents reach only the control server and the report "
        "listener there, and nobody reaches them on their bridge.",
    )
    docker_stun_port: Port = Field(
        3478,
        description="Docker: the UDP port of the control server's STUN, which agents reach if it is on their host.",
    )
    docker_host_address: IPv4Address | None = Field(
        None,
        description="Docker, `up`: the address of this machine at which containers reach it; unless given, that of Docker's own "
        "bridge. A rootless Docker has its bridge elsewhere and needs one, which is not of loopback.",
    )
    docker_networks_closed: Networks = Field(
        ("169.254.0.0/16", "168.63.129.16/32", "192.0.0.192/32", "100.64.0.0/10"),
        description="Docker: networks that agents' own packets do not reach: metadata of clouds, the tailnet by way of the host.",
    )
    docker_tailscaled_memory: str = Field(
        "64MiB", pattern=r"^[1-9][0-9]*[KMG]iB$", description="Docker: GOMEMLIMIT of each agent's tailscaled."
    )
