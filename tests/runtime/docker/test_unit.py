"""What two containers are together, from what Docker shows of each."""

from __future__ import annotations

from typing import Any

import pytest

from elizacloud.runtime.docker.labels import Role, key_in, read, ref_of, written
from elizacloud.runtime.docker.unit import Container, container_of, units_of, unstarted_of
from elizacloud.runtime.protocol import Instance, Labels, Phase

LABELS = Labels("one", "bcdfghjkm2345678", 1, 2)


def shown(role: Role, status: str, exit_code: int = 0, **state: Any) -> dict[str, Any]:
    return {
        "Id": f"id-of-{role}",
        "Config": {"Labels": written(LABELS, role)},
        "State": {
            "Status": status,
            "ExitCode": exit_code,
            "OOMKilled": False,
            "StartedAt": "0001-01-01T00:00:00Z" if status == "created" else "2026-11-22T18:17:41.175312313Z",
            **state,
        },
    }


def container(role: Role, status: str, exit_code: int = 0, **state: Any) -> Container:
    made = container_of(shown(role, status, exit_code, **state))
    assert made is not None
    return made


def seen(sidecar: tuple[Any, ...], agent: tuple[Any, ...], *, last_words: str = "", **agent_state: Any) -> Instance:
    (unit,) = units_of([container(Role.TAILNET, *sidecar), container(Role.AGENT, *agent, **agent_state)])
    return unit.seen(last_words)


@pytest.mark.parametrize(
    ("sidecar", "agent", "phase"),
    [
        ("created", "created", Phase.CREATED),
        ("running", "created", Phase.CREATED),
        ("running", "running", Phase.RUNNING),
        ("running", "paused", Phase.PAUSED),
        ("paused", "paused", Phase.PAUSED),
        ("running", "exited", Phase.EXITED),
        ("exited", "running", Phase.EXITED),
        ("exited", "created", Phase.EXITED),
        ("exited", "exited", Phase.EXITED),
    ],
)
def test_the_phase_of_both(sidecar: str, agent: str, phase: Phase) -> None:
    assert seen((sidecar,), (agent,)).phase is phase


@pytest.mark.parametrize(
    ("sidecar", "agent", "code", "reason"),
    [
        (("running",), ("exited", 3), 3, "agent: exit status 3"),
        (("exited", 137), ("exited", 3), 3, "agent: exit status 3"),
        (("exited", 143), ("exited", 0), 0, "stopped"),
        (("exited", 143), ("exited", 137), 137, "stopped"),
        (("exited", 78), ("exited", 137), 78, "tailnet: the key is dead"),
        (("exited", 69), ("running",), 69, "tailnet: the key is dead"),
        (("exited", 78), ("created",), 78, "tailnet: the key is dead"),
        (("exited", 137), ("running",), 137, "tailnet: the sidecar was killed"),
        (("exited", 137), ("exited", 137), 137, "agent: exit status 137"),
    ],
)
def test_how_it_ended(sidecar: tuple[Any, ...], agent: tuple[Any, ...], code: int, reason: str) -> None:
    instance = seen(sidecar, agent, last_words="the key is dead")

    assert (instance.exit_code, instance.reason) == (code, reason)


def test_only_the_tailnets_own_word_is_that_the_key_is_dead() -> None:
    (whole,) = units_of([container(Role.WHOLE, "exited", 78)])

    assert seen(("exited", 78), ("exited", 137), last_words="cannot join the tailnet").key_is_dead
    assert whole.seen("cannot join the tailnet").key_is_dead
    assert not seen(("exited", 137), ("exited", 78)).key_is_dead
    assert not whole.seen("the agent ended, with status 78").key_is_dead


def test_an_agent_that_used_too_much_memory_is_told_so() -> None:
    assert seen(("exited", 137), ("exited", 137), OOMKilled=True).reason == "agent: out of memory"


def test_a_sidecar_without_last_words_is_told_by_its_status() -> None:
    assert seen(("exited", 1), ("exited", 137)).reason == "tailnet: the sidecar ended: exit status 1"


def test_only_an_agent_that_ended_leaves_a_sidecar_behind() -> None:
    for sidecar, agent, left in (
        ("running", "exited", True),
        ("paused", "exited", True),
        ("exited", "exited", False),
        ("running", "running", False),
        ("running", "created", False),
    ):
        (unit,) = units_of([container(Role.TAILNET, sidecar), container(Role.AGENT, agent)])
        assert unit.sidecar_left_behind is left, (sidecar, agent)


def test_a_start_is_known_to_the_microsecond_and_a_container_that_never_started_has_none() -> None:
    started = seen(("running",), ("running",)).started_at
    assert started is not None
    assert started.isoformat() == "2026-11-22T18:17:41.175312+00:00"
    assert seen(("created",), ("created",)).started_at is None


def test_labels_come_back_as_they_were_written() -> None:
    assert read(written(LABELS, Role.AGENT)) == (LABELS, Role.AGENT)
    assert key_in(ref_of(LABELS)) == ("bcdfghjkm2345678", 1)


@pytest.mark.parametrize("missing", ["installation", "agent", "generation", "run", "role"])
def test_what_lacks_a_label_is_not_ours(missing: str) -> None:
    given = written(LABELS, Role.AGENT)
    del given[f"elizacloud.{missing}"]

    assert read(given) is None
    foreign = shown(Role.AGENT, "running")
    foreign["Config"]["Labels"] = given
    assert container_of(foreign) is None


@pytest.mark.parametrize(
    "ref", ["", "x", "bcdfghjkm2345678", "bcdfghjkm2345678.0.1", "../etc.1.1", "bcdfghjkm2345678.1.1 "]
)
def test_what_is_no_ref_has_no_key(ref: str) -> None:
    assert key_in(ref) is None


def test_the_list_is_enough_for_what_was_never_started_and_for_nothing_else() -> None:
    def listed(state: str, **labels: str) -> dict[str, Any]:
        return {"Id": "id-of-agent", "State": state, "Labels": labels or written(LABELS, Role.AGENT)}

    assert unstarted_of(listed("created")) == container(Role.AGENT, "created")
    assert unstarted_of(listed("exited")) is None
    assert unstarted_of(listed("running")) is None
    assert unstarted_of(listed("created", theirs="yes")) is None
