"""From a running server to one that agents may join: API key, user, policy. Each step can be run again at any time."""

from __future__ import annotations

import asyncio
import json
from enum import StrEnum
from pathlib import Path

import structlog
from pydantic import SecretStr

from elizacloud.errors import HeadscaleRefused, HeadscaleUnavailable, Misconfigured
from elizacloud.headscale.answers import KEY_REFUSED
from elizacloud.headscale.client import USER, HeadscaleClient
from elizacloud.headscale.policy import default_policy, differences
from elizacloud.headscale.protocol import Headscale
from elizacloud.headscale.remembered import write_private
from elizacloud.headscale.server import SupervisedServer

CREATE_KEY_SECONDS = 15.0
_KEY_FILE = "api.key"
_log = structlog.get_logger()


class PolicyOutcome(StrEnum):
    KEPT = "kept"
    INSTALLED = "installed"
    REPLACED = "replaced"


async def bootstrap(server: SupervisedServer, *, operator: bool = False) -> HeadscaleClient:
    """The client of a healthy server of ours, with its user and policy in place. The caller closes the client."""
    client = HeadscaleClient(server.url, await obtain_api_key(server))
    try:
        server.remember(await client.version())
        await client.ensure_user(USER)
        await ensure_policy(client, operator=operator, adopt=True)
    except BaseException:
        await client.close()
        raise
    return client


async def obtain_api_key(server: SupervisedServer) -> SecretStr:
    """The key kept in the server's directory; a new one when there is none or the server no longer takes it."""
    path = server.directory / _KEY_FILE
    kept = _read_key(path)
    if kept is not None and await _is_accepted(server, kept):
        return kept
    made = await _create_key(server)
    if not await _is_accepted(server, made):
        raise HeadscaleRefused(f"cannot use {server.binary.kind}: it does not accept the API key that it made itself")
    write_private(path, made.get_secret_value() + "\n")
    _log.info("headscale key made", renewed=kept is not None)
    return made


async def ensure_policy(headscale: Headscale, *, operator: bool = False, adopt: bool = False) -> PolicyOutcome:
    """Put the default-deny policy in place; do so before the first join, as no policy means that all is allowed.

    A policy that somebody else wrote is kept when it does what ours does, and replaced only with `adopt`; otherwise
    Misconfigured says where it differs.
    """
    wanted = default_policy((await headscale.version()).api, operator=operator)
    stored = await headscale.get_policy()
    differ = differences(stored, wanted)
    if not differ:
        return PolicyOutcome.KEPT
    if stored is not None and not adopt:
        raise Misconfigured(
            f"cannot use the policy that Headscale has: {'; '.join(differ)}."
            f" Add to it {json.dumps(wanted)}, or let it be replaced",
            code="foreign_policy",
        )
    await headscale.set_policy(wanted)
    outcome = PolicyOutcome.INSTALLED if stored is None else PolicyOutcome.REPLACED
    _log.info("headscale policy set", outcome=outcome.value, operator=operator)
    return outcome


def _read_key(path: Path) -> SecretStr | None:
    try:
        text = path.read_text().strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise Misconfigured(f"cannot read {path}: {error}; make it readable, or delete it to get a new key") from error
    return SecretStr(text) if text.isascii() and text.isprintable() and text else None


async def _is_accepted(server: SupervisedServer, key: SecretStr) -> bool:
    client = HeadscaleClient(server.url, key)
    try:
        await client.ensure_user(USER)
    except HeadscaleRefused as error:
        if error.reason == KEY_REFUSED:
            return False
        raise
    finally:
        await client.close()
    return True


async def _create_key(server: SupervisedServer) -> SecretStr:
    command = server.create_key_command()
    try:
        process = await asyncio.create_subprocess_exec(
            *command.argv,
            env=dict(command.env),
            cwd=server.directory,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise Misconfigured(
            f"cannot create an API key: {server.binary.path} cannot be run ({error.strerror}); install it again"
        ) from error
    try:
        async with asyncio.timeout(CREATE_KEY_SECONDS):
            output, complaint = await process.communicate()
    except TimeoutError as error:
        raise HeadscaleUnavailable(
            f"cannot create an API key: {server.binary.kind} did not answer on {server.socket} within"
            f" {CREATE_KEY_SECONDS:g} s; see its log"
        ) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    try:
        key = json.loads(output)
    except ValueError:
        key = None
    if process.returncode != 0 or not isinstance(key, str) or not key:
        # Standard output may hold a key: it is never shown.
        words = " ".join(complaint.decode(errors="replace").split())[-300:]
        raise HeadscaleUnavailable(
            f"cannot create an API key: `{server.binary.kind} apikeys create` failed with exit status"
            f" {process.returncode}: {words}"
        )
    return SecretStr(key)
