from pathlib import Path

from elizacloud.binaries.missing import missing_message
from elizacloud.binaries.versions import Kind, Version


def test_every_way_to_supply_it_is_named() -> None:
    message = missing_message(
        Kind.TAILSCALED,
        ["cannot download x: no connection", "cannot build tailscaled: no Go"],
        copy_to=Path("/cache/tailscaled-1/tailscaled"),
        release_url="https://example.com/t.tgz",
        sha256="abc",
        least_go=Version(1, 26, 6),
    )
    assert message == (
        "cannot find tailscaled 1.80 or newer: cannot download x: no connection; cannot build tailscaled: no Go. "
        "Any of these helps: set ELIZACLOUD_TAILSCALED_BIN to its path; put it on PATH; "
        "copy it to /cache/tailscaled-1/tailscaled; fetch https://example.com/t.tgz by hand (SHA-256 abc); "
        "install Go 1.26.6 or newer and let it reach a module proxy (GOPROXY)."
    )


def test_only_ways_that_exist_are_named() -> None:
    message = missing_message(Kind.DEVCONTROL, [], copy_to=Path("/c/d"), release_url=None, sha256=None, least_go=None)
    assert "it is not on this machine" in message
    assert "fetch" not in message
    assert "Go" not in message
