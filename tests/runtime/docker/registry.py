"""A registry of images in memory, on loopback, with the answers that a test wants (distribution spec v2)."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


@dataclass
class Registry:
    """`refuses` maps a repository to a status and a code; `gate` is closed to make a pull take its time."""

    host: str = ""
    refuses: dict[str, tuple[int, str]] = field(default_factory=dict)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    asked: int = 0
    """How often for a manifest."""
    _blobs: dict[str, bytes] = field(default_factory=dict)
    _tags: dict[str, bytes] = field(default_factory=dict)

    def has(self, name: str, content: str) -> str:
        """Put an image with one file under this name, and return the name that pins it."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            info = tarfile.TarInfo("content")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content.encode()))
        layer = gzip.compress(buffer.getvalue(), mtime=0)
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": ["/content"]},
                "rootfs": {"type": "layers", "diff_ids": [_digest(buffer.getvalue())]},
            }
        ).encode()
        manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": self._part(config, "application/vnd.docker.container.image.v1+json"),
                "layers": [self._part(layer, "application/vnd.docker.image.rootfs.diff.tar.gzip")],
            }
        ).encode()
        repository, _, tag = name.partition(":")
        self._tags[f"{repository}/{tag or 'latest'}"] = manifest
        self._tags[f"{repository}/{_digest(manifest)}"] = manifest
        return f"{self.host}/{repository}@{_digest(manifest)}"

    def _part(self, content: bytes, media_type: str) -> dict[str, object]:
        self._blobs[_digest(content)] = content
        return {"mediaType": media_type, "size": len(content), "digest": _digest(content)}

    async def manifest(self, request: web.Request) -> web.Response:
        self.asked += request.method == "GET"
        repository = request.match_info["name"]
        await self.gate.wait()
        status, code = self.refuses.get(repository, (404, "MANIFEST_UNKNOWN"))
        manifest = self._tags.get(f"{repository}/{request.match_info['tag']}")
        if manifest is None or repository in self.refuses:
            return web.json_response({"errors": [{"code": code, "message": code.lower()}]}, status=status)
        headers = {"Docker-Content-Digest": _digest(manifest)}
        return web.Response(body=manifest, content_type=MANIFEST, headers=headers)

    async def blob(self, request: web.Request) -> web.Response:
        return web.Response(body=self._blobs[request.match_info["digest"]])


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


async def _version(request: web.Request) -> web.Response:
    return web.json_response({}, headers={"Docker-Distribution-Api-Version": "registry/2.0"})


@asynccontextmanager
async def registry() -> AsyncIterator[Registry]:
    """Docker takes one on 127.0.0.0/8 without TLS."""
    made = Registry()
    made.gate.set()
    app = web.Application()
    app.router.add_get("/v2/", _version)
    app.router.add_get("/v2/{name:.+}/manifests/{tag}", made.manifest)
    app.router.add_get("/v2/{name:.+}/blobs/{digest}", made.blob)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.host = f"127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield made
    finally:
        made.gate.set()
        await runner.cleanup()
