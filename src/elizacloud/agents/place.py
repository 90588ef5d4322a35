"""Where agents live: one Headscale and one runtime, and the addresses that an instance needs to know of them."""

from __future__ import annotations

from dataclasses import dataclass

from elizacloud.headscale.protocol import Headscale
from elizacloud.runtime.protocol import Runtime


@dataclass(frozen=True, slots=True)
class Place:
    """A cell and a host. Everything made in it carries the installation's id, so that it can be told from others'."""

    installation_id: str
    cell_id: str
    host_id: str
    headscale: Headscale
    runtime: Runtime
    join_url: str
    """Where a node logs in: Headscale's advertised URL."""
    report_url: str | None = None
    """Where containers report to; None when nothing listens for reports."""
