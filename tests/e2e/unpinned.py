"""The relay with its check of identities taken out: `python -m tests.e2e.unpinned relay`, as `python -m elizacloud relay`.

It dials whoever has the address. Only to see that a test of misdirected requests would find one.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

from elizacloud.tailnet import identity
from elizacloud.tailnet.netmap import Netmap
from elizacloud.upstreams import Upstream

WORKER = "worker"


def by_address_alone(netmap: Netmap, upstream: Upstream) -> str | None:
    if not netmap.known:
        return "the netmap is not current"
    return None if netmap.peer_at(upstream.ip) is not None else f"no peer has the address {upstream.ip}"


def main() -> None:
    identity.mismatch = by_address_alone
    if sys.argv[1] == WORKER:
        del sys.argv[1]
        from elizacloud.app import relay_worker

        relay_worker.main()
        return
    from elizacloud.app import relay
    from elizacloud.cli import main as command_line

    command = relay._command

    def unpinned(*arguments: Any) -> Any:
        return replace(command(*arguments), argv=(sys.executable, "-m", "tests.e2e.unpinned", WORKER))

    relay._command = unpinned  # type: ignore[assignment]
    command_line()


if __name__ == "__main__":
    main()
