"""The order of places, with shell scripts for programs and a local server for the releases."""

import asyncio
import hashlib
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from aiohttp import web

from elizacloud.binaries import Binaries, Binary, BinaryMissing, BinaryUnsupported, Kind, Platform, Source, Version
from elizacloud.binaries.pins import Release
from elizacloud.settings import Settings
from tests.binaries.conftest import Handler, Mirror, program, script

HEADSCALE = b"#!/bin/sh\necho headscale version v0.29.2\n"
TAILSCALED = b"#!/bin/sh\necho 1.102.3\n"
AMD64 = Platform("linux", "amd64")

# A `go` that builds what tells the right version, and leaves a line for each build.
GO = """
if [ "$1" = env ]; then echo go1.27.3; exit; fi
for last; do :; done
while [ "$1" != -o ]; do shift; done
case "$last" in
  .) says='devcontrol v0.29.2+devcontrol.1';;
  *) says=1.102.3;;
esac
printf "#!/bin/sh\\necho $says\\n" > "$2"
chmod +x "$2"
echo built >> {builds}
"""

Find = Callable[..., Binaries]


def tgz(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(f"tailscale_1.102.3_amd64/{name}")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


TGZ = tgz({"tailscaled": TAILSCALED, "tailscale": TAILSCALED})


def releases(mirror: Mirror, **digests: str) -> dict[Kind, Release]:
    """Releases on the mirror; only for amd64, unless other digests are given."""
    headscale = digests or {"amd64": hashlib.sha256(HEADSCALE).hexdigest()}
    return {
        Kind.HEADSCALE: Release("0.29.2", mirror.url("/") + "headscale_{version}_{arch}", headscale),
        Kind.TAILSCALED: Release(
            "1.102.3",
            mirror.url("/") + "tailscale_{version}_{arch}.tgz",
            {"amd64": hashlib.sha256(TGZ).hexdigest()},
            members=("tailscaled", "tailscale"),
        ),
    }


def serve(content: bytes) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(body=content)

    return answer


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    return tmp_path / "bin"


@pytest.fixture
def binaries(tmp_path: Path, bin_dir: Path) -> Find:
    """Nothing is on PATH but what a test puts into `bin_dir`, and the shell's own programs."""
    environ = {"PATH": f"{bin_dir}:/usr/bin:/bin"}

    def make(**options: object) -> Binaries:
        defaults = {"cache_dir": tmp_path / "cache", "platform": AMD64, "environ": environ, "releases": {}}
        return Binaries(**{**defaults, **options})  # type: ignore[arg-type]

    return make


@pytest.fixture
def builds(tmp_path: Path, bin_dir: Path) -> Path:
    builds = tmp_path / "builds"
    script(bin_dir / "go", GO.format(builds=builds))
    return builds


async def test_a_setting_comes_first(binaries: Find, bin_dir: Path, tmp_path: Path) -> None:
    program(bin_dir / "headscale", "v0.28.0")
    named = program(tmp_path / "named", "headscale version v0.27.1")
    found = await binaries(overrides={Kind.HEADSCALE: named}).headscale()
    assert found == Binary(Kind.HEADSCALE, named, Version(0, 27, 1), Source.SETTING)


async def test_a_setting_may_name_a_build_without_a_version(binaries: Find, tmp_path: Path) -> None:
    named = program(tmp_path / "named", "headscale version dev")
    found = await binaries(overrides={Kind.HEADSCALE: named}).headscale()
    assert (found.version, found.source) == (None, Source.SETTING)


@pytest.mark.parametrize("says", [None, "v0.20.0", "something else"])
async def test_a_wrong_setting_is_an_error_not_a_hint(
    binaries: Find, bin_dir: Path, tmp_path: Path, says: str | None
) -> None:
    program(bin_dir / "headscale", "v0.29.2")
    named = program(tmp_path / "named", says) if says else tmp_path / "absent"
    with pytest.raises(BinaryUnsupported, match=rf"cannot use {named}.*ELIZACLOUD_HEADSCALE_BIN"):
        await binaries(overrides={Kind.HEADSCALE: named}).headscale()


async def test_then_comes_path(binaries: Find, bin_dir: Path, mirror: Mirror) -> None:
    there = program(bin_dir / "tailscaled", "1.80.0")
    found = await binaries(releases=releases(mirror)).tailscaled()
    assert found == Binary(Kind.TAILSCALED, there, Version(1, 80), Source.PATH)
    assert mirror.requests == []


@pytest.mark.parametrize("says", ["v0.20.0", "headscale version dev", "something else"])
async def test_what_is_unsupported_on_path_is_passed_over(
    binaries: Find, bin_dir: Path, mirror: Mirror, says: str
) -> None:
    program(bin_dir / "headscale", says)
    mirror.answers = [serve(HEADSCALE)]
    found = await binaries(releases=releases(mirror)).headscale()
    assert (found.version, found.source) == (Version(0, 29, 2), Source.RELEASE)


async def test_a_release_is_downloaded_once_and_kept(binaries: Find, mirror: Mirror, tmp_path: Path) -> None:
    mirror.answers = [serve(HEADSCALE)]
    found = await binaries(releases=releases(mirror)).headscale()
    assert found.path == tmp_path / "cache" / "headscale-0.29.2-linux-amd64" / "headscale"
    assert found.path.read_bytes() == HEADSCALE
    again = await binaries(releases=releases(mirror)).headscale()
    assert (again.path, again.source) == (found.path, Source.CACHE)
    assert [request.path for request in mirror.requests] == ["/headscale_0.29.2_amd64"]


async def test_two_runs_at_once_download_once(binaries: Find, mirror: Mirror) -> None:
    mirror.answers = [serve(HEADSCALE)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(binaries(releases=releases(mirror)).headscale(), name=f"run {i}") for i in range(3)]
    assert sorted(task.result().source for task in tasks) == [Source.CACHE, Source.CACHE, Source.RELEASE]
    assert len(mirror.requests) == 1


async def test_tailscale_comes_with_tailscaled(binaries: Find, mirror: Mirror) -> None:
    mirror.answers = [serve(TGZ)]
    found = await binaries(releases=releases(mirror)).tailscaled()
    assert sorted(path.name for path in found.path.parent.iterdir()) == ["tailscale", "tailscaled"]


async def test_a_file_put_into_the_cache_by_hand_is_used(binaries: Find, mirror: Mirror, tmp_path: Path) -> None:
    copied = program(tmp_path / "cache" / "headscale-0.29.2-linux-amd64" / "headscale", "v0.29.2")
    found = await binaries(releases=releases(mirror)).headscale()
    assert (found.path, found.source) == (copied, Source.CACHE)


async def test_a_cached_file_that_does_not_run_is_replaced(binaries: Find, mirror: Mirror, tmp_path: Path) -> None:
    broken = tmp_path / "cache" / "headscale-0.29.2-linux-amd64" / "headscale"
    broken.parent.mkdir(parents=True)
    broken.write_bytes(b"")
    mirror.answers = [serve(HEADSCALE)]
    found = await binaries(releases=releases(mirror)).headscale()
    assert (found.path, found.source) == (broken, Source.RELEASE)


async def test_a_corrupt_release_is_never_run(
    binaries: Find, mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("elizacloud.binaries.download.ATTEMPTS", 1)
    mirror.answers = [serve(b"#!/bin/sh\ntouch " + str(tmp_path / "ran").encode() + b"; echo v0.29.2\n")]
    with pytest.raises(BinaryMissing, match="has the SHA-256"):
        await binaries(releases=releases(mirror)).headscale()
    assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / "cache").glob("*/headscale"))


async def test_without_a_digest_nothing_is_downloaded(binaries: Find, mirror: Mirror) -> None:
    with pytest.raises(BinaryMissing, match=r"no SHA-256.*ELIZACLOUD_HEADSCALE_SHA256") as error:
        await binaries(releases=releases(mirror), platform=Platform("linux", "arm64")).headscale()
    assert mirror.requests == []
    assert mirror.url("/headscale_0.29.2_arm64") in str(error.value)


async def test_the_operator_may_give_the_digest(binaries: Find, mirror: Mirror) -> None:
    other = HEADSCALE + b"# for another machine\n"
    mirror.answers = [serve(other)]
    found = await binaries(
        releases=releases(mirror),
        platform=Platform("linux", "arm64"),
        headscale_sha256=hashlib.sha256(other).hexdigest(),
    ).headscale()
    assert found.path.read_bytes() == other


async def test_what_cannot_be_downloaded_is_built_once(
    binaries: Find, mirror: Mirror, builds: Path, tmp_path: Path
) -> None:
    mirror.answers = [mirror.status(403)]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(binaries(releases=releases(mirror)).tailscaled(), name=f"run {i}") for i in range(2)]
    assert sorted(task.result().source for task in tasks) == [Source.BUILD, Source.CACHE]
    assert builds.read_text().splitlines() == ["built"]
    assert tasks[0].result().path.with_name("tailscale").is_symlink()
    again = await binaries(releases=releases(mirror)).tailscaled()
    assert again.source is Source.CACHE


async def test_devcontrol_is_built(binaries: Find, builds: Path) -> None:
    found = await binaries().devcontrol()
    assert (found.version, found.source) == (Version(0, 29, 2), Source.BUILD)
    assert (await binaries().devcontrol()).source is Source.CACHE


async def test_a_build_that_does_not_run_is_not_kept(binaries: Find, bin_dir: Path, tmp_path: Path) -> None:
    script(
        bin_dir / "go", 'if [ "$1" = env ]; then echo go1.27.3; exit; fi; while [ "$1" != -o ]; do shift; done; :>"$2"'
    )
    with pytest.raises(BinaryMissing):
        await binaries().devcontrol()
    assert not list((tmp_path / "cache").glob("devcontrol*"))


async def test_headscale_is_never_built(binaries: Find, builds: Path) -> None:
    with pytest.raises(BinaryMissing):
        await binaries().headscale()
    assert not builds.exists()


async def test_with_no_network_at_all_every_way_out_is_named(binaries: Find, bin_dir: Path, tmp_path: Path) -> None:
    offline = Release(
        "1.102.3", "http://127.0.0.1:1/tailscale_{arch}.tgz", {"amd64": "0" * 64}, members=("tailscaled",)
    )
    script(bin_dir / "go", 'if [ "$1" = env ]; then echo go1.27.3; exit; fi; echo no such host; exit 1')
    with pytest.raises(BinaryMissing) as error:
        await binaries(releases={Kind.TAILSCALED: offline}).tailscaled()
    for part in (
        "cannot find tailscaled 1.80 or newer",
        "http://127.0.0.1:1/tailscale_amd64.tgz: no connection",
        "no such host",
        "ELIZACLOUD_TAILSCALED_BIN",
        "PATH",
        str(tmp_path / "cache" / "tailscaled-1.102.3-linux-amd64" / "tailscaled"),
        "0" * 64,
        "GOPROXY",
    ):
        assert part in str(error.value)


async def test_a_cache_that_cannot_be_written_does_not_hide_what_is_on_path(
    binaries: Find, bin_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(BinaryMissing, match="ELIZACLOUD_CACHE_DIR"):
        await binaries().devcontrol()
    program(bin_dir / "devcontrol", "devcontrol v0.29.2+devcontrol.1")
    assert (await binaries().devcontrol()).source is Source.PATH


async def test_settings_name_the_files(tmp_path: Path) -> None:
    paths = {
        Kind.HEADSCALE: program(tmp_path / "h", "v0.29.2"),
        Kind.TAILSCALED: program(tmp_path / "t", "1.102.3"),
        Kind.DEVCONTROL: program(tmp_path / "d", "devcontrol v0.29.2+devcontrol.1"),
    }
    settings = Settings(
        cache_dir=tmp_path / "cache",
        headscale_bin=paths[Kind.HEADSCALE],
        tailscaled_bin=paths[Kind.TAILSCALED],
        devcontrol_bin=paths[Kind.DEVCONTROL],
    )
    binaries = Binaries.from_settings(settings)
    found = [await binaries.headscale(), await binaries.tailscaled(), await binaries.devcontrol()]
    assert {binary.kind: binary.path for binary in found} == paths
    assert not (tmp_path / "cache").exists()
