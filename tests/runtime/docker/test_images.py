"""Images from a registry: which are allowed, when they are pulled, and what is said when they cannot be."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiodocker import Docker
from aiodocker.exceptions import DockerError

from elizacloud.errors import Error, RuntimeRefused, RuntimeUnavailable
from elizacloud.runtime.docker.engine import Engine
from elizacloud.runtime.docker.images import Images, PullPolicy, why_not_pulled
from tests.docker_engine import DockerEngine
from tests.runtime.docker.registry import Registry, registry


@pytest.fixture
async def shop(docker_engine: DockerEngine) -> AsyncIterator[Registry]:
    """A registry; what was pulled from it is removed in the end."""
    async with registry() as made:
        try:
            yield made
        finally:
            async with Docker(docker_engine.url) as docker:
                for image in await docker.images.list():
                    names = [*(image.get("RepoTags") or ()), *(image.get("RepoDigests") or ())]
                    if any(name.startswith(made.host) for name in names):
                        with contextlib.suppress(DockerError):
                            await docker.images.delete(image["Id"], force=True)


@asynccontextmanager
async def images(
    engine: DockerEngine, policy: PullPolicy = PullPolicy.MISSING, *, wait_seconds: float = 30
) -> AsyncIterator[Images]:
    connection = Engine(engine.url)
    made = Images(connection, policy, wait_seconds=wait_seconds)
    try:
        yield made
    finally:
        await made.close()
        await connection.close()


async def test_what_is_missing_is_pulled_once(docker_engine: DockerEngine, shop: Registry) -> None:
    shop.has("agent:1", "one")
    async with images(docker_engine) as made:
        image = await made.get(f"{shop.host}/agent:1")
        assert image.command == ("/content",)
        asked = shop.asked

        assert await made.get(f"{shop.host}/agent:1") == image

    assert shop.asked == asked > 0


async def test_a_tag_that_moved_is_followed_only_when_that_is_wanted(
    docker_engine: DockerEngine, shop: Registry
) -> None:
    shop.has("agent:1", "one")
    async with images(docker_engine) as missing, images(docker_engine, PullPolicy.ALWAYS) as always:
        first = await missing.get(f"{shop.host}/agent:1")
        shop.has("agent:1", "two")

        assert (await missing.get(f"{shop.host}/agent:1")).id == first.id
        assert (await always.get(f"{shop.host}/agent:1")).id != first.id


async def test_a_digest_is_that_image_for_ever_and_not_asked_for_again(
    docker_engine: DockerEngine, shop: Registry
) -> None:
    pinned = shop.has("agent:1", "one")
    async with images(docker_engine, PullPolicy.ALWAYS) as made:
        first = await made.get(pinned)
        shop.has("agent:1", "two")
        asked = shop.asked

        assert (await made.get(pinned)).id == first.id

    assert shop.asked == asked


async def test_a_pull_that_fails_is_not_hidden_behind_an_older_copy(
    docker_engine: DockerEngine, shop: Registry
) -> None:
    shop.has("agent:1", "one")
    async with images(docker_engine, PullPolicy.ALWAYS) as made:
        await made.get(f"{shop.host}/agent:1")
        shop.refuses["agent"] = (404, "MANIFEST_UNKNOWN")

        with pytest.raises(RuntimeRefused) as refused:
            await made.get(f"{shop.host}/agent:1")

    assert refused.value.reason == "image_not_found"


async def test_while_it_is_pulled_that_is_said_and_later_it_is_there(
    docker_engine: DockerEngine, shop: Registry
) -> None:
    shop.has("agent:1", "one")
    shop.gate.clear()
    async with images(docker_engine, wait_seconds=0.05) as made:
        for _ in range(2):
            with pytest.raises(RuntimeUnavailable) as unavailable:
                await made.get(f"{shop.host}/agent:1")
            assert unavailable.value.reason == "image_pulling"
            assert unavailable.value.retry_after_seconds
        shop.gate.set()
        made.wait_seconds = 30

        await made.get(f"{shop.host}/agent:1")


async def test_nothing_is_pulled_when_nothing_may_be(docker_engine: DockerEngine, shop: Registry) -> None:
    shop.has("agent:1", "one")
    async with images(docker_engine, PullPolicy.NEVER) as made:
        with pytest.raises(RuntimeRefused) as refused:
            await made.get(f"{shop.host}/agent:1")

    assert refused.value.reason == "image_not_found"
    assert shop.asked == 0


async def test_an_image_that_is_not_allowed_is_not_even_looked_for(docker_engine: DockerEngine, shop: Registry) -> None:
    shop.has("agent:1", "one")
    async with images(docker_engine) as made:
        with pytest.raises(RuntimeRefused) as refused:
            await made.get(f"{shop.host}/agent:1", allowed=("ghcr.io/elizaos/*", "agent:1"))

    assert refused.value.reason == "image_not_allowed"
    assert shop.asked == 0


@pytest.mark.parametrize(
    ("status", "code", "kind", "reason"),
    [
        (404, "MANIFEST_UNKNOWN", RuntimeRefused, "image_not_found"),
        (404, "NAME_UNKNOWN", RuntimeRefused, "image_not_found"),
        (403, "DENIED", RuntimeRefused, "image_denied"),
        (429, "TOOMANYREQUESTS", RuntimeUnavailable, "registry_busy"),
        (503, "UNAVAILABLE", RuntimeUnavailable, "registry_unavailable"),
    ],
)
async def test_what_a_registry_says_is_told_apart(
    docker_engine: DockerEngine, shop: Registry, status: int, code: str, kind: type[Error], reason: str
) -> None:
    shop.refuses["agent"] = (status, code)
    async with images(docker_engine) as made:
        with pytest.raises(kind) as raised:
            await made.get(f"{shop.host}/agent:1")

    assert raised.value.reason == reason, str(raised.value)


async def test_a_registry_that_is_away_is_unavailable(docker_engine: DockerEngine) -> None:
    async with images(docker_engine) as made:
        with pytest.raises(RuntimeUnavailable) as unavailable:
            await made.get("127.0.0.1:1/agent:1")

    assert unavailable.value.reason == "registry_unavailable"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("pull access denied for x, repository does not exist or may require 'docker login'", "image_denied"),
        ("unauthorized: authentication required", "image_denied"),
        ("Get https://r/v2/: dial tcp: lookup r: no such host", "registry_unavailable"),
        ("toomanyrequests: You have reached your pull rate limit", "registry_busy"),
        ("invalid reference format", "image_not_found"),
        ("no space left on device", "image_not_pulled"),
    ],
)
def test_words_of_other_registries(said: str, reason: str) -> None:
    assert why_not_pulled("x", RuntimeRefused(said)).reason == reason
