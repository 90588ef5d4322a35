"""Where agents live: one Headscale and one runtime, and the addresses that an instance needs to know of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from elizacloud.headscale.protocol import Headscale
from elizacloud.model import Agent
from elizacloud.runtime.hosts import Hosts
from elizacloud.runtime.protocol import Inventory, Runtime


@dataclass(frozen=True, slots=True)
class Place:
    """A cell and its hosts. Everything made in it carries the installation's id, so that it can be told from others'."""

    installation_id: str
    cell_id: str
    host_id: str
    """Where agents live when there is no other host, and those that are started by hand are said to."""
    headscale: Headscale
    runtime: Runtime
    """That of the host, or of all hosts as one."""
    join_url: str
    """Where a node logs in: Headscale's advertised URL."""
    report_url: str | None = None
    """Where containers report to; None when nothing listens for reports."""
    hosts: Hosts | None = None
    """The runtime once more, where it may have several hosts: under a lease `runtime` shows only what every runtime has."""

    @property
    def host_ids(self) -> tuple[str, ...]:
        return self.hosts.ids if self.hosts else (self.host_id,)

    def host_for_new(self, agents: Mapping[str, int]) -> str:
        """Where a new agent is to live, from the number of agents on each host."""
        return self.hosts.choose(agents) if self.hosts else self.host_id

    def inventory_of(self, agent: Agent) -> Inventory:
        """What is on the agent's own host, whether or not others can be asked."""
        return self.hosts.on(agent.host_id) if self.hosts else self.runtime

    async def check_runtime(self) -> None:
        """Raise an Error unless agents can be driven, be it on one host of several."""
        if self.hosts:
            await self.hosts.check(self.installation_id)
        else:
            await self.runtime.list(self.installation_id)
