"""The built wheel, installed where there is no checkout: complete, and able to bring the cloud up."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.e2e.cloud import Cloud

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has nothing but the wheel and what it depends on."""
    uv = os.environ.get("UV") or shutil.which("uv")
    if uv is None:
        pytest.skip("needs uv, which `make test` installs")
    directory = tmp_path_factory.mktemp("wheel")
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}

    def run(*arguments: str | Path) -> None:
        done = subprocess.run(
            [uv, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=150
        )
        assert done.returncode == 0, done.stderr

    run("build", "--quiet", "--wheel", "--out-dir", directory, ROOT)
    (wheel,) = directory.glob("*.whl")
    run("venv", "--quiet", directory / "venv")
    python = directory / "venv" / "bin" / "python"
    run("pip", "install", "--quiet", "--python", python, wheel)
    return python


def test_it_brings_the_cloud_up_outside_of_a_checkout(installed: Path, tmp_path: Path) -> None:
    cloud = Cloud("devcontrol", python=installed, directory=tmp_path)
    try:
        cloud.start()
        assert cloud.facts["headscale"]["kind"] == "devcontrol"
    finally:
        cloud.remove()


def test_the_sources_of_devcontrol_are_in_it(installed: Path, tmp_path: Path) -> None:
    code = "from elizacloud.binaries.module import locate_module; print(locate_module())"
    found = subprocess.run(
        [installed, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30
    )
    module = Path(found.stdout.strip())
    assert str(ROOT) not in str(module)
    assert {"go.mod", "go.sum", "main.go", "tailscaled.tags"} <= {path.name for path in module.iterdir()}
