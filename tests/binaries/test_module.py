from pathlib import Path

import pytest

from elizacloud.binaries.errors import BuildFailed
from elizacloud.binaries.module import Module, locate_module
from elizacloud.binaries.versions import Kind, Version


@pytest.fixture
def module(tmp_path: Path) -> Module:
    (tmp_path / "go.mod").write_text("module x\n\ngo 1.26.6\n\nrequire (\n\ttailscale.com v1.102.3\n)\n")
    (tmp_path / "go.sum").write_text("sums\n")
    (tmp_path / "tailscaled.tags").write_text("a,b\n")
    (tmp_path / "main.go").write_text("package main\n")
    return Module(tmp_path)


def test_the_shipped_module_is_found_and_read() -> None:
    module = Module(locate_module())
    assert module.least_go >= Version(1, 26)
    assert "ts_include_cli" in module.tailscaled_tags.split(",")


def test_go_mod_says_the_versions(module: Module) -> None:
    assert module.least_go == Version(1, 26, 6)
    assert module.tailscale_version == "1.102.3"
    assert module.tailscaled_tags == "a,b"


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("go.sum", {Kind.TAILSCALED, Kind.DEVCONTROL}),
        ("tailscaled.tags", {Kind.TAILSCALED, Kind.DEVCONTROL}),
        ("main.go", {Kind.DEVCONTROL}),
        ("deep/new.go", {Kind.DEVCONTROL}),
        ("main_test.go", set()),
        ("README.md", set()),
    ],
)
def test_a_build_is_named_after_what_goes_into_it(module: Module, file: str, changes: set[Kind]) -> None:
    kinds = (Kind.TAILSCALED, Kind.DEVCONTROL)
    before = {kind: module.name(kind) for kind in kinds}
    (module.path / file).parent.mkdir(exist_ok=True)
    (module.path / file).write_text("other")
    assert {kind for kind in kinds if module.name(kind) != before[kind]} == changes
    assert before[Kind.TAILSCALED].startswith("tailscaled-1.102.3-")


def test_a_module_that_is_damaged_says_so(module: Module, tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module x\n")
    with pytest.raises(BuildFailed, match=r"no line of go\.mod"):
        _ = module.least_go
    (tmp_path / "go.sum").unlink()
    with pytest.raises(BuildFailed, match=r"go\.sum cannot be read"):
        module.name(Kind.DEVCONTROL)
