"""The sidecar's image: what it is made of, and of what it is not."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import pytest

from elizacloud.errors import Misconfigured, RuntimeRefused
from elizacloud.runtime.docker.building import sidecar_context
from tests.contract.docker_runtime import docker_rig
from tests.contract.runtimes import spec
from tests.docker_engine import SIDECAR_IMAGE, DockerEngine

MOST_BYTES = 25 * 1000 * 1000


@pytest.fixture
def busybox() -> Path:
    found = shutil.which("busybox")
    if found is None:
        pytest.skip("busybox is not installed")
    return Path(found)


def test_it_has_the_two_programs_and_the_script(busybox: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(sidecar_context(busybox=busybox, tailscaled=busybox))) as tar:
        members = {member.name: member for member in tar.getmembers()}

    assert members["rootfs/usr/bin/container-init"].mode & 0o111
    assert members["rootfs/usr/bin/tailscale"].linkname == "tailscaled"
    assert members["rootfs/bin/sh"].linkname == "/usr/lib/elizacloud/busybox"
    assert members["Dockerfile.sidecar"].size


def test_it_trusts_whom_the_machine_trusts(busybox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    company = tmp_path / "company.pem"
    company.write_text("-----BEGIN CERTIFICATE-----")
    monkeypatch.setenv("SSL_CERT_FILE", str(company))
    with tarfile.open(fileobj=io.BytesIO(sidecar_context(busybox=busybox, tailscaled=busybox))) as tar:
        found = tar.extractfile("rootfs/etc/ssl/certs/ca-certificates.crt")
        assert found is not None
        assert found.read() == company.read_bytes()


def test_a_program_that_is_not_static_is_refused(busybox: Path, tmp_path: Path) -> None:
    dynamic = Path("/bin/ls")

    with pytest.raises(Misconfigured, match="is not static"):
        sidecar_context(busybox=busybox, tailscaled=dynamic)
    with pytest.raises(Misconfigured, match="cannot be read"):
        sidecar_context(busybox=tmp_path / "absent", tailscaled=busybox)


def test_it_is_small(docker_engine: DockerEngine) -> None:
    assert docker_engine.get(f"/images/{SIDECAR_IMAGE}/json")["Size"] <= MOST_BYTES


async def test_without_it_nothing_is_made_and_how_to_build_it_is_said(docker_engine: DockerEngine) -> None:
    async with docker_rig(docker_engine, sidecar_image="elizacloud-test/absent") as rig:
        with pytest.raises(RuntimeRefused, match="elizacloud image sidecar") as refused:
            await rig.runtime.create(spec())

        assert refused.value.reason == "no_sidecar_image"
        assert rig.engine.names("containers") == []
