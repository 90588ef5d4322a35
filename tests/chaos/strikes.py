"""A fault as it happens: what breaks, how long, and that the held agents go on into it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

from elizacloud.states import Step
from tests.chaos.cloud import ChaosCloud
from tests.chaos.gate import Arm
from tests.chaos.matrix import NO_INSTANCE, Fault
from tests.chaos.proxy import Trouble
from tests.e2e.looking import a_moment

LASTS_SECONDS: dict[Fault, float] = {
    Fault.CONTROL_PLANE_KILLED: 0.2,
    Fault.RUNTIME_KILLED: 1,
    Fault.HEADSCALE_KILLED: 2,
    Fault.HEADSCALE_STALLED: 12,  # longer than we wait for an answer
    Fault.HEADSCALE_FAILS: 3,
    Fault.ANSWER_LOST: 2,
    Fault.STORE_LOST: 7,  # longer than SQLite waits for its turn
    Fault.DISK_FULL: 3,
}


async def strike(cloud: ChaosCloud, fault: Fault, arms: Mapping[Step, Arm]) -> None:
    """Break it, let the held agents go, and repair it after a while."""
    if fault is Fault.INSTANCE_KILLED:
        for step, arm in arms.items():
            assert arm.agent is not None
            killed = cloud.kill_instance(arm.agent)
            assert not killed if step in NO_INSTANCE else killed, f"{killed} processes of the agent at {arm.seam}"
        cloud.gate.open()
        return
    async with _trouble(cloud, fault):
        cloud.gate.open()
        await a_moment(LASTS_SECONDS[fault])


def _trouble(cloud: ChaosCloud, fault: Fault) -> AbstractAsyncContextManager[None]:
    match fault:
        case Fault.CONTROL_PLANE_KILLED:
            return cloud.dead("control plane")
        case Fault.RUNTIME_KILLED:
            return cloud.dead("process host")
        case Fault.HEADSCALE_KILLED:
            return cloud.dead("control server")
        case Fault.HEADSCALE_STALLED:
            return cloud.stalled_headscale()
        case Fault.HEADSCALE_FAILS:
            return cloud.faulty_headscale(Trouble.FAILS)
        case Fault.ANSWER_LOST:
            return cloud.faulty_headscale(Trouble.LOSES_ANSWERS)
        case Fault.STORE_LOST:
            return cloud.lost_store()
        case Fault.DISK_FULL:
            return cloud.full_disk()
    raise AssertionError(f"no way to bring about: {fault}")
