"""Each step of an agent's life meets each thing that can go wrong outside, at a seam in the middle of it; within 30 seconds
of the repair everything agrees and is as its owner wants it.

Real processes, real kills. `make test` has one wave a fault, each at other seams; in `make chaos` every seam meets every
fault.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio

from elizacloud.states import TRANSITIONS, Step
from tests.chaos.audit import moves_in
from tests.chaos.cloud import ChaosCloud
from tests.chaos.matrix import EVERY_SEAM, FAULTS, NO_INSTANCE, Fault, Matrix, choose
from tests.chaos.moves import change_their_minds, give_up_early, lose_their_nodes
from tests.chaos.strikes import strike
from tests.chaos.waves import Waves

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def waves(headscale: str) -> AsyncIterator[Waves]:
    async with ChaosCloud(headscale) as cloud:
        waves = Waves(cloud)
        await waves.begin()
        yield waves


@pytest.fixture(scope="module")
def matrix(request: pytest.FixtureRequest, headscale: str) -> Matrix:
    return request.config.stash[Matrix.KEY].setdefault(headscale, Matrix())


@pytest.mark.parametrize("fault", FAULTS, ids=str)
async def test_agents_survive(waves: Waves, matrix: Matrix, fault: Fault) -> None:
    if fault is Fault.DISK_FULL and not waves.cloud.disk_is_own:
        pytest.skip("no disk can be mounted here to be filled: mounting takes root")
    for number in range(max(map(len, waves.places.values())) if EVERY_SEAM else 1):
        seams = choose(waves.places, fault, number)
        try:
            arms = await waves.hold(seams)
            await strike(waves.cloud, fault, arms)
            await waves.settled()
        except AssertionError:
            print(f"held at {', '.join(map(str, seams.values()))}\n{waves.cloud.parts.log('control plane')[-20000:]}")
            raise
        finally:
            waves.cloud.gate.open()
        for step, arm in arms.items():
            if not (fault is Fault.INSTANCE_KILLED and step in NO_INSTANCE):
                matrix.hit(arm.seam, fault)
        await waves.thin_out()


@pytest.mark.parametrize("story", [change_their_minds, give_up_early, lose_their_nodes])
async def test_agents_end_where_their_owner_wants_them(waves: Waves, story: Callable[[Waves], Awaitable[None]]) -> None:
    try:
        await story(waves)
    except (AssertionError, TimeoutError):
        print(waves.cloud.parts.log("control plane")[-20000:])
        raise
    finally:
        waves.cloud.gate.open()


async def test_every_move_of_the_table_was_made(waves: Waves) -> None:
    made = moves_in(waves.cloud.world.data / "store.db")
    assert {(state.value, to.value) for state, all_to in TRANSITIONS.items() for to in all_to} - made == set()


async def test_every_step_met_every_fault(request: pytest.FixtureRequest, matrix: Matrix, waves: Waves) -> None:
    chosen = [item.name for item in request.session.items if item.name.startswith("test_agents_survive[")]
    faults = [fault for fault in FAULTS if any(str(fault) in name for name in chosen)]
    if not waves.cloud.disk_is_own:
        faults.remove(Fault.DISK_FULL)
    assert matrix.missing(faults) == []
    assert "a step has a bug" not in waves.cloud.parts.log("control plane")
    assert all(len(waves.places[step]) >= 6 for step in Step), waves.places
