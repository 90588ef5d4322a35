"""This machine, before and after `up`: binaries and their versions, the data dir, the front door's port."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from elizacloud.binaries import BinaryUnsupported
from elizacloud.binaries.cache import others_may_change
from elizacloud.binaries.versions import Kind, ask
from elizacloud.cli.checks.check import Check, fail, ok, warn
from elizacloud.cli.checks.facts import Facts, Running
from elizacloud.headscale.preflight import Finding
from elizacloud.settings import Settings

LOW_SPACE_BYTES = 500 * 1024 * 1024
NO_SPACE_BYTES = 50 * 1024 * 1024
# Names in /proc/mounts of file systems whose locks other machines do not see (SQLite, flock).
NETWORK_FILESYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "afs", "ceph", "glusterfs", "fuse.glusterfs"}


def machine_checks(facts: Facts) -> list[Check]:
    settings = facts.settings

    async def tailscaled() -> Sequence[Finding]:
        return [await look_for(Kind.TAILSCALED, settings)]

    async def control_server() -> Sequence[Finding]:
        if facts.running is not None:
            return [running_server_finding(facts.running)]
        found = await look_for(Kind.HEADSCALE, settings)
        return [found] if found.fix == "" else [_without_headscale(found, await look_for(Kind.DEVCONTROL, settings))]

    async def data_dir() -> Sequence[Finding]:
        return [data_dir_finding(settings.data_dir.expanduser().absolute())]

    async def port() -> Sequence[Finding]:
        return [port_finding(settings.host, settings.port, facts.running.url if facts.running else None)]

    checks = [Check("tailscaled", tailscaled), Check("data dir", data_dir), Check("port", port)]
    if "://" not in settings.headscale and settings.headscale_api_url is None:
        checks.append(Check("control server", control_server))
    return checks


async def look_for(kind: Kind, settings: Settings) -> Finding:
    """The first binary of that kind that is on this machine; nothing is fetched or built."""
    override: Path | None = getattr(settings, f"{kind}_bin")
    complaints = []
    for path in [override] if override else list(_candidates(kind, settings.cache_dir.expanduser())):
        try:
            version = await ask(kind, path.expanduser().absolute(), os.environ)
        except BinaryUnsupported as error:
            complaints.append(str(error))
            continue
        return ok(kind, f"{version or 'a build without a version'} at {path}")
    if complaints:
        return fail(kind, "; ".join(complaints), f"install another, or set ELIZACLOUD_{kind.upper()}_BIN to a good one")
    return warn(
        kind,
        "not on this machine yet",
        f"`elizacloud up` fetches or builds it, or set ELIZACLOUD_{kind.upper()}_BIN to its path",
    )


def running_server_finding(running: Running) -> Finding:
    cause = f"{running.headscale_kind} {running.headscale_version} runs at {running.headscale_url}"
    if running.headscale_kind == Kind.DEVCONTROL:
        return warn(
            "control server", f"{cause}; it is not Headscale", "fine for development; use Headscale for all else"
        )
    return ok("control server", cause)


def _without_headscale(headscale: Finding, devcontrol: Finding) -> Finding:
    if devcontrol.fix == "":
        return warn(
            "headscale",
            f"{headscale.cause}; devcontrol, {devcontrol.cause}, can stand in for development",
            "for production install Headscale, or set ELIZACLOUD_HEADSCALE_BIN to its path",
        )
    return headscale


def _candidates(kind: Kind, cache: Path) -> Iterator[Path]:
    if found := shutil.which(kind):
        yield Path(found)
    cached = sorted(path for path in cache.glob(f"*/{kind}") if os.access(path, os.X_OK))
    yield from (path for path in cached if not any(map(others_may_change, (cache, path.parent, path))))


def data_dir_finding(path: Path, *, free_bytes: int | None = None, filesystem: str | None = None) -> Finding:
    """Whether all state can be kept there. The last two are looked up unless given."""
    name = "data dir"
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    if not there.is_dir():
        return fail(name, f"{there} is not a directory", "choose another --data-dir")
    if not os.access(there, os.W_OK | os.X_OK):
        return fail(
            name, f"{there} is not writable by this user", "choose another --data-dir, or correct its owner and mode"
        )
    filesystem = filesystem_of(there) if filesystem is None else filesystem
    if filesystem in NETWORK_FILESYSTEMS:
        fix = "choose a --data-dir on a local disk, or set ELIZACLOUD_DATABASE_URL to a PostgreSQL"
        return fail(name, f"{there} is on a network file system ({filesystem}), where locks do not hold", fix)
    free = shutil.disk_usage(there).free if free_bytes is None else free_bytes
    if free < LOW_SPACE_BYTES:
        verdict = fail if free < NO_SPACE_BYTES else warn
        return verdict(
            name, f"only {free / 1e6:.0f} MB are free at {there}", "free some space or choose another --data-dir"
        )
    if not path.exists():
        return ok(name, f"{path} will be made at the first start")
    facts = path.stat()
    if facts.st_uid != os.geteuid():
        return fail(name, f"{path} belongs to another user", "run as that user, or choose another --data-dir")
    if stat.S_IMODE(facts.st_mode) & 0o077:
        return warn(name, f"{path} is open to other users", f"chmod 700 {path}")
    return ok(name, f"{path}, {free / 1e9:.1f} GB free")


def filesystem_of(path: Path, mounts: str | None = None) -> str:
    """The type of the file system that the path is on, as /proc/mounts says; empty where there is none."""
    if mounts is None:
        try:
            mounts = Path("/proc/mounts").read_text()
        except OSError:
            return ""
    best, kind = "", ""
    for line in mounts.splitlines():
        point, name = line.split(" ")[1:3]
        inside = path.is_relative_to(point.replace("\\040", " "))
        if inside and len(point) >= len(best):
            best, kind = point, name
    return kind


def port_finding(host: str, port: int, running_url: str | None) -> Finding:
    """Whether the front door can listen, unless it does."""
    name = "port"
    if running_url is not None:
        return ok(name, f"elizacloud listens at {running_url}")
    if port == 0:
        return ok(name, "a free one will be taken")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        fix = f"end what listens there (`ss -ltnp sport = :{port}`), or give another --port"
        return fail(name, f"{host}:{port} cannot be listened on: {error.strerror or error}", fix)
    return ok(name, f"{host}:{port} is free")
