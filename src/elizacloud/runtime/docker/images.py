"""Which image is run: one that is allowed, pulled when the policy says so, and from then on known by its id.

A pull goes on when nobody waits for it any more: whoever asks gets RuntimeUnavailable with how far it is, and asks again. A
pull that fails is never hidden behind an older copy of the image.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

import structlog

from elizacloud.errors import Error, NotFound, RuntimeRefused, RuntimeUnavailable
from elizacloud.runtime.docker.engine import Engine

PULL_SECONDS = 3600.0
WAIT_SECONDS = 10.0
ASK_AGAIN_SECONDS = 2.0

log = structlog.get_logger()


class PullPolicy(StrEnum):
    MISSING = "missing"
    """Pull what is not there."""
    ALWAYS = "always"
    """Ask the registry each time, so that a tag that moved is followed."""
    NEVER = "never"
    """Run only what is there."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image of this host. Containers are made from `id`, so that a tag that moves changes nothing that runs."""

    name: str
    id: str
    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


def image_of(name: str, shown: Mapping[str, Any]) -> Image:
    """From the Engine API's inspection."""
    config = shown.get("Config") or {}
    variables = (variable.partition("=") for variable in config.get("Env") or ())
    return Image(
        name=name,
        id=shown["Id"],
        entrypoint=tuple(config.get("Entrypoint") or ()),
        command=tuple(config.get("Cmd") or ()),
        user=config.get("User") or "",
        environment={variable: value for variable, _, value in variables},
    )


class Images:
    """The images of one host. `close` ends the pulls."""

    def __init__(self, engine: Engine, policy: PullPolicy, *, wait_seconds: float = WAIT_SECONDS) -> None:
        self._engine = engine
        self._policy = policy
        self.wait_seconds = wait_seconds
        self._pulls: dict[str, _Pull] = {}

    async def of_ours(self, name: str) -> Image:
        """The sidecar's: made on the host and never pulled, since whoever took its name at a registry would hold every
        agent's tailnet. Raises RuntimeRefused `no_sidecar_image`."""
        try:
            return await self._inspect(name)
        except NotFound:
            raise RuntimeRefused(
                f"cannot run agents without the sidecar's image {name}: build it with `elizacloud image sidecar`",
                code="no_sidecar_image",
            ) from None

    async def get(self, name: str, *, allowed: tuple[str, ...] = ("*",)) -> Image:
        """An agent's. Raises RuntimeRefused (`image_not_allowed`, `image_not_found`, `image_denied`, `image_not_pulled`) and
        RuntimeUnavailable (`image_pulling`, `registry_unavailable`, `registry_busy`)."""
        if not any(fnmatchcase(name, pattern) for pattern in allowed):
            raise RuntimeRefused(f"cannot run the image {name[:200]}: it is not allowed here", code="image_not_allowed")
        pinned = "@sha256:" in name or name.startswith("sha256:")
        if name not in self._pulls and (self._policy is not PullPolicy.ALWAYS or pinned):
            try:
                return await self._inspect(name)
            except NotFound:
                if self._policy is PullPolicy.NEVER:
                    raise RuntimeRefused(
                        f"cannot run the image {name}: it is not on this host, and nothing is pulled",
                        code="image_not_found",
                    ) from None
        await self._pulled(name)
        return await self._inspect(name)

    async def close(self) -> None:
        tasks = [pull.task for pull in self._pulls.values()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def _inspect(self, name: str) -> Image:
        async with self._engine.asked(f"look at the image {name}") as docker:
            return image_of(name, await docker.images.inspect(name))

    async def _pulled(self, name: str) -> None:
        """Join the pull of this image, or begin it."""
        pull = self._pulls.get(name)
        if pull is None:
            pull = self._pulls[name] = _Pull()
            pull.task = asyncio.create_task(self._pull(name, pull), name=f"pull {name}")
        done, _pending = await asyncio.wait({pull.task}, timeout=self.wait_seconds)
        if not done:
            raise RuntimeUnavailable(
                f"cannot start the agent yet: its image {name} is being pulled ({pull.progress})",
                code="image_pulling",
                retry_after_seconds=ASK_AGAIN_SECONDS,
            )
        self._pulls.pop(name, None)
        pull.task.result()

    async def _pull(self, name: str, pull: _Pull) -> None:
        log.info("image pull began", image=name)
        try:
            async with self._engine.streaming(f"pull the image {name}") as docker, asyncio.timeout(PULL_SECONDS):
                async for line in docker.images.pull(name, stream=True):
                    pull.tell(line)
        except Error as error:
            log.warning("image pull failed", image=name, reason=str(error))
            raise why_not_pulled(name, error) from error
        log.info("image pull ended", image=name, progress=pull.progress)


class _Pull:
    def __init__(self) -> None:
        self.task: asyncio.Task[None]
        self._layers: dict[str, tuple[int, int]] = {}

    def tell(self, line: Mapping[str, Any]) -> None:
        """One line of the Engine's progress stream."""
        detail = line.get("progressDetail") or {}
        if line.get("status") == "Downloading" and "total" in detail:
            self._layers[line["id"]] = (detail["current"], detail["total"])
        elif line.get("status") in ("Download complete", "Pull complete") and line.get("id") in self._layers:
            self._layers[line["id"]] = (self._layers[line["id"]][1],) * 2

    @property
    def progress(self) -> str:
        have, need = (sum(layer[part] for layer in self._layers.values()) for part in (0, 1))
        return f"{have / 1e6:.0f} of {need / 1e6:.0f} MB" if need else "it has just begun"


_DENIED = re.compile(r"unauthorized|denied|forbidden|authentication required|no basic auth", re.IGNORECASE)
_ABSENT = re.compile(r"not found|manifest unknown|does not exist|name unknown|invalid reference", re.IGNORECASE)
_BUSY = re.compile(r"toomanyrequests|too many requests|rate limit", re.IGNORECASE)
_AWAY = re.compile(
    r"no such host|connection refused|i/o timeout|deadline exceeded|unreachable|server misbehaving|TLS handshake"
    r"|EOF|connection reset|Client\.Timeout|HTTP status: 5\d\d",
    re.IGNORECASE,
)


def why_not_pulled(name: str, error: Error) -> Error:
    """The registry's words as our errors: what asking again can change is unavailable, what it cannot is refused."""
    text = str(error)
    if isinstance(error, RuntimeUnavailable):
        return error
    if _BUSY.search(text):
        return RuntimeUnavailable(f"{text}; the registry limits how often", code="registry_busy")
    if _AWAY.search(text):
        return RuntimeUnavailable(f"{text}; the registry of {name} cannot be reached", code="registry_unavailable")
    # Registries say "denied" of a name that does not exist, too, and Docker adds that it may not exist.
    if _DENIED.search(text):
        return RuntimeRefused(f"{text}; check the image's name, or log this host in", code="image_denied")
    if _ABSENT.search(text):
        return RuntimeRefused(f"{text}; check the image's name", code="image_not_found")
    return RuntimeRefused(text, code="image_not_pulled")
