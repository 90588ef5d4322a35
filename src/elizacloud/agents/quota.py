"""How many agents an owner may have, and have running: one gate for all that makes an agent run, be it created or woken.

Agents are counted by what is wanted of them, so that two that come up at once are two. Calls that overlap, at other control
planes too, can each see room for the last one.
"""

from __future__ import annotations

from collections.abc import Mapping

from elizacloud.errors import TooMany
from elizacloud.settings import Settings
from elizacloud.states import Wanted
from elizacloud.store import Store


async def check_quota(store: Store, settings: Settings, owner_id: str, *, new: bool) -> None:
    """Raise TooMany unless the owner may have one more agent running, and with `new` one more at all."""
    if settings.owner_agents is None and settings.owner_running is None:
        return
    check_counts(
        await store.agents.count_by_wanted(owner_id), settings.owner_agents if new else None, settings.owner_running
    )


def check_counts(counts: Mapping[Wanted, int], most_agents: int | None, most_running: int | None) -> None:
    """The same on an owner's agents by what is wanted of them; None is no limit. Pure."""
    agents = sum(count for wanted, count in counts.items() if wanted is not Wanted.DELETED)
    if most_agents is not None and agents >= most_agents:
        raise TooMany(
            f"cannot create another agent: its owner has {agents} and may have {most_agents}; delete one",
            code="quota_agents",
        )
    running = counts.get(Wanted.RUNNING, 0)
    if most_running is not None and running >= most_running:
        raise TooMany(
            f"cannot run another agent: {running} of its owner's run and {most_running} may; stop or pause one",
            code="quota_running",
        )
