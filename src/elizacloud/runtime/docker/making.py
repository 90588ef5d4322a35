"""Make what a unit is made of. Every call may be repeated after a crash in the middle of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from aiodocker.volumes import DockerVolume

from elizacloud.beside import beside
from elizacloud.errors import NotFound, RuntimeRefused
from elizacloud.runtime.docker.configs import (
    DockerOptions,
    agent_config,
    is_embedded,
    sidecar_config,
    whole_config,
)
from elizacloud.runtime.docker.engine import CONFLICT, Engine
from elizacloud.runtime.docker.firewall import Firewall, openings_for
from elizacloud.runtime.docker.images import Image, Images
from elizacloud.runtime.docker.labels import (
    AGENT,
    INSTALLATION,
    Keeps,
    Key,
    Role,
    name_of,
    network_name,
    read_of_volume,
    ref_of,
    written_for_volume,
)
from elizacloud.runtime.docker.unit import Container
from elizacloud.runtime.protocol import InstanceSpec, Labels, Volume


class Maker:
    def __init__(self, engine: Engine, images: Images, options: DockerOptions) -> None:
        self._engine = engine
        self._images = images
        self._options = options
        self._networks = asyncio.Lock()
        self._firewall = Firewall(engine, options.networks_closed)

    async def make(self, spec: InstanceSpec) -> None:
        """Volumes and containers, not started. None of the containers may be there."""
        labels, options = spec.labels, self._options
        key = (labels.agent_id, labels.generation)
        allowed = (*options.images_allowed, options.agent_image)
        sidecar_image, image = await beside(
            self._images.of_ours(options.sidecar_image),
            self._images.get(spec.agent.image or options.agent_image, allowed=allowed),
        )
        if is_embedded(image.name, options):
            whole = whole_config(spec, image, options)
            await beside(self._network(spec, sidecar_image), self._volumes(labels, key, Keeps.NODE, Keeps.STATE))
            await self._container(whole, name_of(key, Role.WHOLE))
            return
        agent_config(spec, image, options, sidecar_id="")  # refuses before anything is made
        await beside(self._network(spec, sidecar_image), self._volumes(labels, key, *Keeps))
        sidecar = sidecar_config(spec, sidecar_image, options)
        sidecar_id = await self._container(sidecar, name_of(key, Role.TAILNET))
        agent = agent_config(spec, image, options, sidecar_id=sidecar_id)
        await self._container(agent, name_of(key, Role.AGENT))

    def docker_restarted(self) -> None:
        self._firewall.forget()

    async def check_command(self, agent: Container) -> None:
        """Raise RuntimeRefused `spawn_failed` when the agent's command names a file that is not in its container."""
        async with self._engine.asked("look for the agent's command") as docker:
            program = (await docker.containers.container(agent.id).show())["Config"]["Cmd"][0]
        # Any other name its shell looks for on the PATH, and says so when it is not there.
        if program.startswith("/") and not await self._engine.has_file(agent.id, program):
            raise RuntimeRefused(
                f"cannot start the agent: there is no {program[:200]} in its image", code="spawn_failed"
            )

    async def remove_volumes(self, key: Key, *kept: Keeps) -> None:
        for keeps in kept:
            with suppress(NotFound):
                async with self._engine.asked("remove a volume") as docker:
                    await DockerVolume(docker, name_of(key, keeps)).delete()

    async def volumes(self, installation_id: str, agent_id: str | None) -> list[Volume]:
        wanted = [f"{INSTALLATION}={installation_id}"] + ([] if agent_id is None else [f"{AGENT}={agent_id}"])
        async with self._engine.asked("list the volumes") as docker:
            listed = await docker.volumes.list(filters={"label": wanted})
        names: dict[Key, set[str]] = {}
        for found in listed["Volumes"] or []:
            key = read_of_volume(found.get("Labels"))
            if key is not None:
                names.setdefault(key, set()).add(found["Name"])
        return [
            Volume(
                ref_of(Labels(installation_id, *key, run=0)),
                *key,
                whole={name_of(key, keeps) for keeps in (Keeps.NODE, Keeps.STATE)} <= kept,
            )
            for key, kept in names.items()
        ]

    async def _volumes(self, labels: Labels, key: Key, *kept: Keeps) -> None:
        await beside(*(self._volume(labels, key, keeps) for keeps in kept))

    async def _volume(self, labels: Labels, key: Key, keeps: Keeps) -> None:
        if keeps is Keeps.TOOLS:
            # Docker fills it from the image while it makes the first container on it; one that was begun is not gone on with.
            await self.remove_volumes(key, keeps)
        async with self._engine.asked("make a volume") as docker:
            config = {"Name": name_of(key, keeps), "Labels": written_for_volume(labels)}
            volume = await docker.volumes.create(config)
            # Asked for: the answer to a creation has no labels when dockerd was started again since the volume was made.
            present = (await volume.show()).get("Labels") or {}
        if present.get(INSTALLATION) != labels.installation_id:
            raise RuntimeRefused("cannot create the instance: its volume is not ours", code="not_ours")

    async def _network(self, spec: InstanceSpec, sidecar_image: Image) -> None:
        """One bridge for an installation, on which containers hear neither each other nor, but for a few ports, their host."""
        installation_id = spec.labels.installation_id
        async with self._networks:
            bridge = await self._bridge(installation_id)
        if self._options.firewall:
            openings = openings_for((spec.join_url, spec.report_url), stun_port=self._options.stun_port)
            await self._firewall.ensure(installation_id, bridge, openings, sidecar_image.id)

    async def _bridge(self, installation_id: str) -> str:
        """Find or make it; the name of its device."""
        name = network_name(installation_id)
        while True:
            async with self._engine.asked("look for the network") as docker:
                for found in await docker.networks.list(filters={"name": [f"^{name}$"]}):
                    return f"br-{found['Id'][:12]}"
            config = {
                "Name": name,
                "CheckDuplicate": True,
                "Driver": "bridge",
                "EnableIPv6": False,
                "Options": {"com.docker.network.bridge.enable_icc": "false"},
                "Labels": {INSTALLATION: installation_id},
            }
            try:
                async with self._engine.asked("make the network") as docker:
                    await docker.networks.create(config)
            except RuntimeRefused as error:
                if error.reason != CONFLICT:  # another control plane made it
                    raise

    async def _container(self, config: Mapping[str, Any], name: str) -> str:
        try:
            async with self._engine.asked("create the instance") as docker:
                return str((await docker.containers.create(dict(config), name=name)).id)
        except RuntimeRefused as error:
            if error.reason != CONFLICT:
                raise
            raise RuntimeRefused(
                f"cannot create the instance: the name {name} is taken by a container that is not ours, or is being made "
                "by another control plane; look for it on the host",
                code="name_taken",
            ) from error
