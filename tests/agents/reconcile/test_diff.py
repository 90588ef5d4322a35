"""The diff as a table: what the store, the runtime and Headscale say, and what is found."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import chain
from typing import Any

import pytest

from elizacloud.agents.reconcile.diff import ONLINE_GRACE, Finding, Kind, diff
from elizacloud.agents.reconcile.observe import Outside
from elizacloud.headscale.protocol import Node, PreAuthKey
from elizacloud.model import Generation, Run, agent_hostname
from elizacloud.runtime.protocol import Instance, Labels, Phase, Volume
from elizacloud.states import State, Wanted
from elizacloud.store import Record
from tests.fakes.store import an_agent

NOW = datetime(2026, 1, 2, tzinfo=UTC)
OURS, THEIRS = "inst1", "inst2"
A, B = "bbbbbbbbbbbbbbbb", "cccccccccccccccc"


def tags(agent_id: str = A, installation: str = OURS) -> tuple[str, ...]:
    return ("tag:agent", f"tag:a-{agent_id}", f"tag:i-{installation}")


def found_in(of: list[Record], outside: Outside, **known: Any) -> list[Finding]:
    return list(chain.from_iterable(diff(of, outside, installation_id=OURS, now=NOW, **known)))


def record(state: State = State.READY, **changes: Any) -> Record:
    agent = replace(an_agent(), id=A, state=state, generation=1, run=2, **changes)
    generation = Generation(
        A, 1, preauth_key_id="k1", preauth_key_expired=True, node_id="n1", node_key="nk", machine_key="mk",
        ipv4="100.64.0.1", ipv6="fd7a::1",
    )  # fmt: skip
    return Record(agent, generation, Run(A, 1, 2, runtime_ref="r2"))


def unpinned(state: State, **changes: Any) -> Record:
    """One whose node nobody has seen yet."""
    of = record(state)
    return replace(of, generation=replace(of.generation, node_id=None, **changes))


def instance(agent_id: str = A, generation: int = 1, run: int = 2, phase: Phase = Phase.RUNNING) -> Instance:
    return Instance(f"r{run}", Labels(OURS, agent_id, generation, run), phase)


def node(id_: str = "n1", **changes: Any) -> Node:
    found = Node(
        id_,
        agent_hostname(A),
        agent_hostname(A),
        "nk",
        "mk",
        "100.64.0.1",
        "fd7a::1",
        tags(),
        "k1",
        online=True,
        last_seen=None,
        created_at=NOW,
    )
    return replace(found, **changes)


def key(id_: str = "k1", *, alive: bool = False, agent_id: str = A, installation: str = OURS) -> PreAuthKey:
    expires_at = NOW + timedelta(minutes=5) if alive else NOW - timedelta(minutes=5)
    return PreAuthKey(id_, tags(agent_id, installation), reusable=False, used=not alive, expires_at=expires_at)


WELL = ((instance(),), (node(),), (key(),))


@pytest.mark.parametrize(
    ("of", "instances", "nodes", "keys", "found"),
    [
        pytest.param([record()], *WELL, [], id="all is well"),
        pytest.param([], (), (), (), [], id="nothing at all"),
        pytest.param([record()], (), *WELL[1:], [(Kind.INSTANCE_GONE, "r2")], id="instance vanished"),
        pytest.param(
            [record()], (instance(phase=Phase.EXITED),), *WELL[1:], [(Kind.INSTANCE_GONE, "r2")], id="instance exited"
        ),
        pytest.param([record(external=True)], (), *WELL[1:], [], id="started by hand: no instance is expected"),
        pytest.param([record(State.STOPPED)], (), *WELL[1:], [], id="stopped: no instance is expected"),
        pytest.param(
            [record()], (instance(run=1), instance()), *WELL[1:], [(Kind.OLD_RUN, "r1")], id="an old run is still there"
        ),
        pytest.param([record()], (instance(), instance(run=3)), *WELL[1:], [], id="the next run is being created"),
        pytest.param(
            [record()], (instance(), instance(run=9)), *WELL[1:], [(Kind.LATER_RUN, "r9")], id="the store went back"
        ),
        pytest.param([record(State.DELETING)], (instance(run=1),), *WELL[1:], [], id="being deleted: left to the step"),
        pytest.param([], (instance(),), (), (), [(Kind.ORPHAN_INSTANCE, "r2")], id="instance of no agent"),
        pytest.param(
            [record()], WELL[0], (), (key(),), [(Kind.NODE_GONE, "n1"), (Kind.SPENT_KEY, "k1")][:1], id="node gone"
        ),
        pytest.param(
            [record()],
            WELL[0],
            (node(preauth_key_id="k9"),),
            (),
            [(Kind.NODE_CHANGED, "n1")],
            id="node has another key",
        ),
        pytest.param(
            [record()], WELL[0], (node(machine_key="other"),), (), [(Kind.NODE_CHANGED, "n1")], id="another machine"
        ),
        pytest.param([record()], WELL[0], (node(tags=("tag:agent",)),), (), [(Kind.NODE_CHANGED, "n1")], id="tag lost"),
        pytest.param([record()], WELL[0], (node(node_key="new"),), (), [], id="a new node key is its good right"),
        pytest.param(
            [record()], WELL[0], (node(ipv4="100.64.0.9"),), (), [(Kind.ADDRESS_CHANGED, "n1")], id="address changed"
        ),
        pytest.param(
            [record()], WELL[0], (node(name="else"),), WELL[2], [(Kind.NODE_BY_HAND, "n1")], id="another hostname"
        ),
        pytest.param(
            [record()], WELL[0], (node(expires_at=NOW),), WELL[2], [(Kind.NODE_EXPIRED, "n1")], id="node expired"
        ),
        pytest.param(
            [record()], WELL[0], (node(expires_at=NOW + timedelta(days=1)),), WELL[2], [], id="node will expire one day"
        ),
        pytest.param(
            [record()],
            WELL[0],
            (node(expires_at=NOW, machine_key="other"),),
            WELL[2],
            [(Kind.NODE_CHANGED, "n1")],
            id="expired, and another machine's: a person has to say",
        ),
        pytest.param(
            [record(State.STOPPED)],
            (),
            (node(online=False, expires_at=NOW),),
            WELL[2],
            [],
            id="stopped: seen at its start",
        ),
        pytest.param(
            [record()],
            WELL[0],
            (node(), node("n2", preauth_key_id="k2")),
            WELL[2],
            [(Kind.EXTRA_NODE, "n2")],
            id="two nodes for one generation",
        ),
        pytest.param([record(State.STARTED)], WELL[0], (node("n2"),), (), [], id="a join that is not yet seen"),
        pytest.param(
            [record(State.STOPPED)],
            (),
            (node(), node("n2", preauth_key_id="k2")),
            (key(), key("k2")),
            [(Kind.EXTRA_NODE, "n2")],
            id="stopped: what it was before goes, what it comes back as stays",
        ),
        pytest.param(
            [unpinned(State.STOPPED)], (), (node(),), (key(),), [], id="stopped: a join that was not seen before"
        ),
        pytest.param(
            [unpinned(State.STOPPED, preauth_key_id=None)],
            (),
            (node(preauth_key_id=None),),
            (),
            [(Kind.EXTRA_NODE, "n1")],
            id="stopped: without a key there is no join to come",
        ),
        pytest.param([], (), (node(),), (key(),), [(Kind.ORPHAN_NODE, "n1")], id="node of no agent, its key stays"),
        pytest.param([], (), (), (key(),), [(Kind.SPENT_KEY, "k1")], id="expired key of no agent"),
        pytest.param([], (), (), (key(alive=True),), [(Kind.ORPHAN_KEY, "k1")], id="live key of no agent"),
        pytest.param(
            [record()],
            *WELL[:2],
            (key(), key("k0")),
            [(Kind.SPENT_KEY, "k0")],
            id="key of an earlier try of this agent",
        ),
        pytest.param(
            [record()],
            *WELL[:2],
            (key(), key("k0", alive=True)),
            [(Kind.EXTRA_KEY, "k0")],
            id="live key of an earlier try of this agent",
        ),
        pytest.param([record()], *WELL[:2], (key(alive=True),), [(Kind.LIVE_KEY, "k1")], id="key alive after the join"),
        pytest.param(
            [unpinned(State.STARTED, preauth_key_id="k2")],
            WELL[0],
            (node(tags=tags(B, THEIRS), preauth_key_id="k1"),),
            (key(alive=True),),
            [(Kind.LIVE_KEY, "k1")],
            id="live key of an earlier try of this agent, used by another one's node",
        ),
        pytest.param(
            [unpinned(State.STARTED, preauth_key_expired=False)],
            WELL[0],
            (),
            (key(alive=True),),
            [],
            id="key of a join to come",
        ),
        pytest.param(
            [unpinned(State.STOPPED)],
            (),
            (),
            (key(alive=True),),
            [(Kind.LIVE_KEY, "k1")],
            id="key that was expired, alive again as a clock was put back",
        ),
        pytest.param(
            [],
            (),
            (node(tags=tags(B, THEIRS)), node("n3", tags=("tag:relay",)), node("n4", tags=())),
            (key(installation=THEIRS),),
            [],
            id="what others have is not looked at",
        ),
        pytest.param(
            [],
            (),
            (node("n5", tags=("tag:relay", f"tag:i-{OURS}")),),
            (replace(key("k5"), tags=("tag:relay", f"tag:i-{OURS}")),),
            [],
            id="our own relay is no agent",
        ),
    ],
)
def test_what_is_found(
    of: list[Record],
    instances: tuple[Instance, ...],
    nodes: tuple[Node, ...],
    keys: tuple[PreAuthKey, ...],
    found: list[tuple[Kind, str]],
) -> None:
    volumes = tuple(Volume(f"{one.agent.id}.1.0", one.agent.id, 1) for one in of)
    findings = found_in(of, Outside(instances, nodes, keys, volumes))
    assert [(finding.kind, finding.about) for finding in findings] == found
    assert all(finding.agent_id == A for finding in findings)


VOLUME = Volume(f"{A}.1.0", A, 1)


@pytest.mark.parametrize(
    ("of", "instances", "volumes", "found"),
    [
        pytest.param([record()], WELL[0], (VOLUME,), [], id="all is well"),
        pytest.param([], (), (VOLUME,), [(Kind.UNKNOWN_VOLUME, VOLUME.ref)], id="volume of an agent never known"),
        pytest.param([], (), (Volume("v", B, 1),), [(Kind.ORPHAN_VOLUME, "v")], id="volume of an agent that is gone"),
        pytest.param(
            [], WELL[0], (VOLUME,), [(Kind.ORPHAN_INSTANCE, "r2")], id="it goes with the instance that has it"
        ),
        pytest.param([record()], WELL[0], (), [(Kind.VOLUME_GONE, "generation 1")], id="gone while it runs"),
        pytest.param(
            [record()],
            WELL[0],
            (replace(VOLUME, whole=False),),
            [(Kind.VOLUME_GONE, "generation 1")],
            id="a part is gone",
        ),
        pytest.param([record(external=True)], (), (), [], id="started by hand: its state is not ours"),
        pytest.param([record(State.STOPPED)], (), (), [], id="stopped: found at the next start"),
        pytest.param(
            [replace(record(), agent=replace(record().agent, generation=2))],
            (instance(generation=2),),
            (VOLUME, Volume("v2", A, 2)),
            [(Kind.OLD_VOLUME, VOLUME.ref)],
            id="one that came back",
        ),
    ],
)
def test_what_is_found_of_volumes(
    of: list[Record], instances: tuple[Instance, ...], volumes: tuple[Volume, ...], found: list[tuple[Kind, str]]
) -> None:
    findings = found_in(of, Outside(instances, *WELL[1:], volumes), gone={B})
    assert [(one.kind, one.about) for one in findings if one.kind is not Kind.ORPHAN_NODE] == found


def test_a_relay_that_was_not_there_before_is_found_by_its_machine() -> None:
    ours = node("n7", machine_key="known", tags=("tag:relay", f"tag:i-{OURS}"))
    new = node("n8", machine_key="new", tags=("tag:relay", f"tag:i-{OURS}"), given_name="relay-2")
    by_hand = node("n9", machine_key="other", tags=("tag:relay",))
    theirs = node("n6", machine_key="theirs", tags=("tag:relay", f"tag:i-{THEIRS}"))
    outside = Outside((), (ours, new, by_hand, theirs), ())
    found = found_in([], outside, relays={"known"})
    assert [(finding.kind, finding.about) for finding in found] == [
        (Kind.UNKNOWN_RELAY, "n8"),
        (Kind.UNKNOWN_RELAY, "n9"),
    ]
    assert "relay-2" in found[0].detail


def test_an_id_that_two_agents_have_is_found_with_both() -> None:
    other = replace(record(), agent=replace(record().agent, id=B))
    other = replace(other, generation=replace(other.generation, agent_id=B, preauth_key_id="k2"))
    found = found_in([record(), other], Outside((), (), ()))
    twice = [(finding.agent_id, finding.about) for finding in found if finding.kind is Kind.ID_TWICE]
    assert twice == [(A, "node n1"), (B, "node n1")]


def test_instances_are_repaired_before_nodes_and_nodes_before_keys() -> None:
    outside = Outside((instance(),), (node(),), (key("k7"),))
    kinds = [finding.kind for finding in found_in([], outside)]
    assert kinds == [Kind.ORPHAN_INSTANCE, Kind.ORPHAN_NODE, Kind.SPENT_KEY]


def test_leftovers_are_by_tag_and_by_record_but_never_what_carries_another_agents_tag() -> None:
    bare, anothers = node("n2", tags=("tag:agent",)), node("n3", tags=tags(B))
    outside = Outside((), (node("n1"), bare, anothers), (key("k1"), key("k2", agent_id=B)))
    found = outside.leftovers_of(A, key_ids=frozenset({"k2"}), node_ids=frozenset({"n2", "n3"}))
    assert ([one.id for one in found.nodes], [one.id for one in found.keys]) == (["n1", "n2"], ["k1"])


def rested(**changes: Any) -> Record:
    """A stopped agent, of whose last run this much is different."""
    of = record(State.STOPPED, wanted=Wanted.STOPPED, updated_at=NOW - ONLINE_GRACE)
    run = Run(A, 1, 2, runtime_ref="r2", started_at=NOW - timedelta(hours=1), ended_at=NOW - ONLINE_GRACE)
    return replace(of, run=replace(run, **changes))


@pytest.mark.parametrize(
    ("of", "nodes", "found"),
    [
        pytest.param(rested(), (node(),), ["n1"], id="online, long after its machine ended"),
        pytest.param(rested(), (node(online=False),), [], id="offline"),
        pytest.param(rested(ended_at=NOW - ONLINE_GRACE + timedelta(seconds=1)), (node(),), [], id="just ended"),
        pytest.param(rested(ended_at=NOW + timedelta(days=1)), (node(),), [], id="a clock was put back"),
        pytest.param(rested(ended_at=None), (node(),), [], id="it may have been started"),
        pytest.param(rested(started_at=None, ended_at=None), (node(),), ["n1"], id="its next run was only created"),
        pytest.param(replace(rested(), run=None), (node(),), ["n1"], id="it never ran"),
        pytest.param(
            replace(rested(), generation=replace(rested().generation, node_id=None)), (node(),), ["n1"], id="by its key"
        ),
        pytest.param(rested(), (node("n2", preauth_key_id="k2"),), [], id="another node of its: that goes"),
        pytest.param(rested(), (node(tags=tags(A, THEIRS)),), [], id="another installation's"),
        pytest.param(
            replace(rested(), agent=replace(rested().agent, external=True)), (node(),), [], id="started by hand"
        ),
        *(
            pytest.param(replace(rested(), agent=replace(rested().agent, state=state)), (node(),), [], id=state.value)
            for state in State
            if state not in (State.STOPPED, State.GONE)
        ),
    ],
)
def test_the_node_of_an_agent_of_which_nothing_runs_is_found_online(
    of: Record, nodes: tuple[Node, ...], found: list[str]
) -> None:
    findings = found_in([of], Outside((), nodes, (key(),)))
    assert [finding.about for finding in findings if finding.kind is Kind.NODE_ONLINE] == found
