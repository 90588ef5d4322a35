"""Dials by plain sockets, where no tailnet is needed for what can go wrong. What they reach is in test_tun.py."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Iterator

import pytest

from elizacloud.errors import Unavailable
from elizacloud.relay.dialling.dial import TcpDialer
from elizacloud.tailnet.netmap import Netmap
from elizacloud.tailnet.tunnel import Tunnel


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_without_a_descriptor_there_is_no_path() -> None:
    dial = TcpDialer(Tunnel(Netmap()))
    with pytest.raises(Unavailable, match="Too many open files") as refused, no_more_files():
        await dial("100.64.0.7", 2138)
    assert refused.value.reason == "agent_unroutable"
