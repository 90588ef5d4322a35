"""A TCP connection to a peer through tailscaled's LocalAPI `dial`, as bytes: what to send, what the answer means.

SOCKS5 and CONNECT would dial the host's own network for an unknown address; `dial` says so (`Dial-Self`) and we refuse.
It dials this machine's own tailnet address though, which is the host's loopback: check identity.py before and after.
After a 101 the bytes are the agent's. No half-close exists: an end of file on either side ends both directions, and
an agent that is not there is a 101, then an end of file. Source: serveDial in ipn/localapi/localapi.go, v1.102.3.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from elizacloud.errors import Refused, TailnetUnavailable

ANSWER_LIMIT_BYTES = 16 * 1024


class Outcome(Enum):
    CONNECTED = "connected"
    NOT_A_PEER = "not a peer"
    """The address is not on the tailnet: dialling it anyway would leave by the host's network."""
    REFUSED = "refused"
    """The peer's machine answered that nothing listens there."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class DialAnswer:
    outcome: Outcome
    rest: bytes = b""
    """What the agent has sent already; only when connected."""
    detail: str = ""


def dial_request(ip: str, port: int) -> bytes:
    """The request that asks tailscaled for a connection to this address."""
    return (
        f"POST /localapi/v0/dial HTTP/1.1\r\nHost: local-tailscaled.sock\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n"
        f"Dial-Host: {ip}\r\nDial-Port: {port}\r\nDial-Network: tcp\r\nContent-Length: 0\r\n\r\n"
    ).encode("ascii")


def parse_dial_answer(data: bytes) -> DialAnswer | None:
    """What the bytes received so far mean; None when the answer is not complete."""
    head, separator, rest = data.partition(b"\r\n\r\n")
    if not separator:
        return DialAnswer(Outcome.FAILED, detail="no end of headers") if len(data) > ANSWER_LIMIT_BYTES else None
    if head.startswith(b"HTTP/1.1 101 "):
        return DialAnswer(Outcome.CONNECTED, rest)
    status_line, *lines = head.lower().split(b"\r\n")
    headers = {name.strip(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    length = headers.get(b"content-length", b"0")
    if length.isdigit() and len(rest) < min(int(length), ANSWER_LIMIT_BYTES):
        return None
    if status_line.startswith(b"http/1.1 200 ") and headers.get(b"dial-self") == b"true":
        return DialAnswer(Outcome.NOT_A_PEER)
    detail = (status_line + b" " + rest[:300]).decode("utf-8", "replace").strip()
    return DialAnswer(Outcome.REFUSED if "refused" in detail else Outcome.FAILED, detail=detail)


async def dial(
    socket: Path, ip: str, port: int, *, within_seconds: float
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect to a peer, for probes and tests. Streams lose an early answer to a long upload: not for the data path.

    Raises TailnetUnavailable when it cannot be reached in time, Refused when it is not a peer or nothing listens.
    """
    where = f"{ip}:{port}"
    try:
        async with asyncio.timeout(within_seconds):
            reader, writer = await asyncio.open_unix_connection(socket)
            try:
                answer = await _ask(reader, writer, dial_request(ip, port))
                if answer.outcome is Outcome.CONNECTED:
                    return reader, writer
            except BaseException:
                writer.close()
                raise
            writer.close()
    except TimeoutError as error:
        raise TailnetUnavailable(
            f"cannot reach {where}: no answer in {within_seconds:g} s", code="dial_timeout"
        ) from error
    except OSError as error:
        raise TailnetUnavailable(f"cannot reach {where}: tailscaled does not answer ({error})") from error
    if answer.outcome is Outcome.FAILED:
        raise TailnetUnavailable(f"cannot reach {where}: {answer.detail}")
    raise Refused(f"cannot reach {where}: {answer.outcome.value}", code=answer.outcome.name.lower())


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, request: bytes) -> DialAnswer:
    writer.write(request)
    try:
        # Not a byte more than the head: what follows a 101 is the agent's and stays in the reader.
        received = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
        raise OSError("it closed the connection") from error
    while (answer := parse_dial_answer(received)) is None:
        more = await reader.read(ANSWER_LIMIT_BYTES)
        if not more:
            raise OSError("it closed the connection")
        received += more
    return answer
