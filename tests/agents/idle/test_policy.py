"""Three layers of policy: the agent's over its owner's over the settings'."""

from __future__ import annotations

from typing import Any

import pytest

from elizacloud.agents.idle.policy import Policy, check_policy, policy_of
from elizacloud.errors import Invalid

SETTINGS = Policy(900.0, 3600.0)
HOURS = {"timezone": "UTC", "awake": ["mon-fri 08:00-18:00"]}


def test_what_is_not_said_is_left_to_the_layer_below() -> None:
    assert policy_of(SETTINGS) == SETTINGS
    assert policy_of(SETTINGS, {}, {"stopAfterSeconds": 0}) == Policy(900.0, 0.0)
    assert policy_of(SETTINGS, {"idleAfterSeconds": 60}, {"idleAfterSeconds": None}) == Policy(60.0, 3600.0)


def test_the_agent_has_the_last_word() -> None:
    owner = {"idleAfterSeconds": 60, "stopAfterSeconds": "never", "schedule": HOURS}
    assert policy_of(SETTINGS, owner, {"idleAfterSeconds": "never", "schedule": "never"}) == Policy(None, None)
    assert policy_of(SETTINGS, owner).schedule is not None


@pytest.mark.parametrize(
    "layer",
    [
        {"idleAfter": 60},
        {"idleAfterSeconds": 0.5},
        {"idleAfterSeconds": -1},
        {"idleAfterSeconds": True},
        {"idleAfterSeconds": "60"},
        {"idleAfterSeconds": float("nan")},
        {"idleAfterSeconds": float("inf")},
        {"stopAfterSeconds": -1},
        {"stopAfterSeconds": []},
        {"schedule": "always"},
        {"schedule": {}},
        {"schedule": {"awake": "mon 08:00-18:00"}},
        {"schedule": {"awake": [1]}},
        {"schedule": {**HOURS, "zone": "UTC"}},
        {"schedule": {"timezone": 1, "awake": ["mon 08:00-18:00"]}},
    ],
)
def test_what_cannot_be_understood_is_refused(layer: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        check_policy(layer)
