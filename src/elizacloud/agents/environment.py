"""The environment of an agent that a person starts by hand: what a runtime would give it otherwise. Pure."""

from __future__ import annotations

from pydantic import SecretStr

from elizacloud.agents.place import Place
from elizacloud.model import AGENT_PORT, agent_hostname
from elizacloud.runtime.protocol import InstanceSecrets


def environment_of(agent_id: str, place: Place, secrets: InstanceSecrets) -> dict[str, SecretStr]:
    """Names of the seed first, then those that tailscale's own images read, then what the agent itself reads."""
    shown = {
        "HEADSCALE_URL": place.join_url,
        "CONTAINER_ID": agent_id,
        "TS_HOSTNAME": agent_hostname(agent_id),
        "PORT": str(AGENT_PORT),
        "MILADY_CLOUD_PROVISIONED": "1",
        "ELIZA_CLOUD_PROVISIONED": "1",
    }
    if place.report_url is not None:
        shown["ELIZACLOUD_API_URL"] = place.report_url
    hidden = {
        "ELIZACLOUD_JOIN_TOKEN": secrets.join_token,
        "ELIZACLOUD_BUSY_TOKEN": secrets.busy_token,
        "MILADY_API_TOKEN": secrets.agent_token,
        "ELIZA_API_TOKEN": secrets.agent_token,
    }
    if secrets.preauth_key is not None:
        hidden |= {"HEADSCALE_AUTH_KEY": secrets.preauth_key, "TS_AUTHKEY": secrets.preauth_key}
    return {name: SecretStr(value) for name, value in shown.items()} | hidden
