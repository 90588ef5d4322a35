"""`elizacloud join-relay`: put the tailscaled of a relay host on the tailnet. Harmless when it is there already.

A command of its own, because it takes Headscale's API key, which a relay that faces the internet is not to have.
"""

from __future__ import annotations

from elizacloud.app.control_server import headscale_of
from elizacloud.app.data_dir import open_data_dir
from elizacloud.app.relay_node import join_as_relay
from elizacloud.headscale.bootstrap import ensure_policy
from elizacloud.headscale.client import USER, HeadscaleClient
from elizacloud.settings import Settings
from elizacloud.tailnet.join import Joined


async def join_relay(settings: Settings, *, within_seconds: float) -> Joined:
    """Return when it has joined, as one of the installation whose data dir this is.

    The policy comes first: without one Headscale lets every node reach every other. Raises Misconfigured,
    HeadscaleUnavailable or HeadscaleRefused, and TailnetUnavailable when the time is up.
    """
    data = open_data_dir(settings)
    url, key = headscale_of(settings)
    headscale = HeadscaleClient(url, key)
    try:
        await headscale.ensure_user(USER)
        await ensure_policy(headscale)
        return await join_as_relay(
            headscale,
            settings.tailscaled_socket or data.sockets / "relay" / "tailscaled.sock",
            join_url=settings.headscale_join_url or url,
            installation_id=data.installation_id,
            within_seconds=within_seconds,
        )
    finally:
        await headscale.close()
