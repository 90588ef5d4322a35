"""What differs between the store and the world, as data. Pure: one look in, findings out.

Only what carries this installation's label or tag is looked at: others share the runtime and the Headscale with us. The
relays' own nodes carry it too, but not tag:agent. A hostname or an address is never looked at: anybody may have the same.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from elizacloud.agents.identity import by_hand, drift, is_expired
from elizacloud.agents.reconcile.observe import Outside
from elizacloud.headscale.protocol import Node, PreAuthKey
from elizacloud.model import TAG_AGENT, TAG_RELAY, installation_tag
from elizacloud.runtime.protocol import Instance, Phase, Volume
from elizacloud.states import State
from elizacloud.store import Record

_AGENT_TAG = "tag:a-"
_RUNS_HERE = frozenset({State.STARTED, State.JOINED, State.READY, State.PAUSED})
_HAS_JOINED = frozenset({State.JOINED, State.READY, State.PAUSED})
_ENDING = frozenset({State.DELETING, State.TOMBSTONE})


class Kind(StrEnum):
    ORPHAN_INSTANCE = "instance of no agent"
    OLD_RUN = "instance of an old run"
    LATER_RUN = "instance of a run that the store does not know"
    INSTANCE_GONE = "instance gone"
    ORPHAN_NODE = "node of no agent"
    EXTRA_NODE = "second node of an agent"
    NODE_GONE = "node gone"
    NODE_EXPIRED = "node expired"
    NODE_CHANGED = "node changed"
    ADDRESS_CHANGED = "address changed"
    NODE_BY_HAND = "node renamed or moved"
    NODE_ONLINE = "node of a stopped agent online"
    ORPHAN_KEY = "key of no agent"
    EXTRA_KEY = "key that an agent did not get to use"
    SPENT_KEY = "expired key of no node"
    LIVE_KEY = "key alive that nobody is to join with"
    ORPHAN_VOLUME = "volume of an agent that is gone"
    UNKNOWN_VOLUME = "volume of an agent that the store never knew"
    OLD_VOLUME = "volume of an old generation"
    VOLUME_GONE = "volume gone"
    ID_TWICE = "id that two agents have"
    UNKNOWN_RELAY = "relay that was not there before"


REMOVALS = frozenset(
    {
        Kind.ORPHAN_INSTANCE,
        Kind.OLD_RUN,
        Kind.LATER_RUN,
        Kind.ORPHAN_NODE,
        Kind.EXTRA_NODE,
        Kind.ORPHAN_KEY,
        Kind.ORPHAN_VOLUME,
        Kind.UNKNOWN_VOLUME,
    }
)
"""Findings whose repair destroys something: they have to be seen twice, and not too many at once.

A key that no node joined with is nothing once it has expired, or once its agent has another one: a bad hour of Headscale's
may leave many. It only has to be seen twice.
"""

ALARMS = frozenset(
    {Kind.OLD_VOLUME, Kind.VOLUME_GONE, Kind.ID_TWICE, Kind.UNKNOWN_RELAY, Kind.NODE_BY_HAND, Kind.NODE_ONLINE}
)
"""Findings that a person has to know of and that are left as they are."""

ONLINE_GRACE = timedelta(minutes=2)
"""How long after its machine's end a node may be shown as online: Headscale waits 10 s, and where the end of the connection
did not arrive, for its keep-alive of each minute (hscontrol/poll.go, v0.29.2)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """`about` is the instance's ref, the node's or the key's id; `agent_id` the agent that it belongs or belonged to."""

    kind: Kind
    agent_id: str
    about: str
    detail: str = ""


def diff(
    records: Sequence[Record],
    outside: Outside,
    *,
    installation_id: str,
    now: datetime,
    gone: Collection[str] = (),
    relays: Collection[str] | None = None,
) -> Iterator[Iterable[Finding]]:
    """All findings, in an order in which they may be repaired: instances, then nodes, then keys, then volumes.

    They come in pieces of a few microseconds, for whoever has other work beside ten thousand agents; most are empty. `gone` are
    the agents that the store knows to be gone. `relays` are the machine keys of the relays that are known; None when that is
    not known.
    """
    known = {record.agent.id: record for record in records}
    ours = installation_tag(installation_id)
    nodes = {node.id: node for node in outside.nodes}
    for instance in outside.instances:
        yield _of_instance(instance, known.get(instance.labels.agent_id))
    instances = {(i.labels.agent_id, i.labels.generation, i.labels.run): i for i in outside.instances}
    volumes = {(volume.agent_id, volume.generation): volume for volume in outside.volumes}
    for record in records:
        yield _of_record(record, instances.get(_run_key(record)), nodes, volumes, now)
    yield _of_ids(records)
    for node in outside.nodes:
        if ours in node.tags and TAG_AGENT in node.tags:
            yield _of_node(node, known.get(agent_of(node.tags)), now)
    used = {node.preauth_key_id for node in outside.nodes}
    for key in outside.keys:
        if ours in key.tags and TAG_AGENT in key.tags:
            yield _of_key(key, known.get(agent_of(key.tags)), is_used=key.id in used, now=now)
    held = {(instance.labels.agent_id, instance.labels.generation) for instance in outside.instances}
    for volume in outside.volumes:
        if (volume.agent_id, volume.generation) not in held:
            yield _of_volume(volume, known.get(volume.agent_id), is_gone=volume.agent_id in gone)
    if relays is not None:
        yield [
            Finding(Kind.UNKNOWN_RELAY, "", node.id, f"{node.given_name} at {node.ipv4}")
            for node in relay_nodes(outside.nodes, installation_id)
            if node.machine_key not in relays
        ]


def relay_nodes(nodes: Sequence[Node], installation_id: str) -> list[Node]:
    """The nodes that may reach our agents: with the relays' tag, and not another installation's."""
    ours = installation_tag(installation_id)
    return [
        node
        for node in nodes
        if TAG_RELAY in node.tags and all(tag == ours for tag in node.tags if tag.startswith(installation_tag("")))
    ]


def agent_of(tags: tuple[str, ...]) -> str:
    """The agent that a node's or key's tags name; empty when they name none."""
    return next((tag.removeprefix(_AGENT_TAG) for tag in tags if tag.startswith(_AGENT_TAG)), "")


def is_extra(node: Node, record: Record) -> bool:
    """True when this node with the agent's tag is none that the agent is, or may still be: it joined as another one, or it
    is stopped, and was neither pinned to this one nor has a key by which this one joined."""
    generation = record.generation
    if node.id == generation.node_id:
        return False
    is_by_key = generation.preauth_key_id is not None and node.preauth_key_id == generation.preauth_key_id
    return record.agent.state in _HAS_JOINED or (record.agent.state is State.STOPPED and not is_by_key)


def _run_key(record: Record) -> tuple[str, int, int]:
    return (record.agent.id, record.agent.generation, record.agent.run)


def _of_instance(instance: Instance, record: Record | None) -> Iterator[Finding]:
    labels = instance.labels
    if record is None:
        yield Finding(Kind.ORPHAN_INSTANCE, labels.agent_id, instance.ref)
        return
    present, theirs = (record.agent.generation, record.agent.run), (labels.generation, labels.run)
    if theirs < present and record.agent.state not in _ENDING:
        yield Finding(Kind.OLD_RUN, labels.agent_id, instance.ref, f"run {theirs[0]}.{theirs[1]}")
    elif labels.generation > record.agent.generation or labels.run > record.agent.run + 1:
        # One ahead is a run that is being created just now, or whose creation was cut off: the next start meets it.
        yield Finding(Kind.LATER_RUN, labels.agent_id, instance.ref, f"run {theirs[0]}.{theirs[1]}")


def _of_record(
    record: Record,
    instance: Instance | None,
    nodes: dict[str, Node],
    volumes: dict[tuple[str, int], Volume],
    now: datetime,
) -> Iterator[Finding]:
    agent, generation, run = record.agent, record.generation, record.run
    if agent.state in _RUNS_HERE and not agent.external:
        ref = run.runtime_ref if run is not None and run.runtime_ref else ""
        if instance is None or instance.phase is Phase.EXITED:
            yield Finding(Kind.INSTANCE_GONE, agent.id, ref)
        volume = volumes.get((agent.id, agent.generation))
        if volume is None or not volume.whole:
            yield Finding(Kind.VOLUME_GONE, agent.id, f"generation {agent.generation}")
    if agent.state in _HAS_JOINED and generation.node_id is not None:
        node = nodes.get(generation.node_id)
        if node is None:
            yield Finding(Kind.NODE_GONE, agent.id, generation.node_id)
        elif changed := drift(node, generation):
            yield Finding(Kind.NODE_CHANGED, agent.id, node.id, changed)
        elif is_expired(node, now):
            yield Finding(
                Kind.NODE_EXPIRED, agent.id, node.id, f"it expired at {node.expires_at:%Y-%m-%d %H:%M:%S} UTC"
            )
        elif (node.ipv4, node.ipv6) != (generation.ipv4, generation.ipv6):
            yield Finding(Kind.ADDRESS_CHANGED, agent.id, node.id)
        elif changed := by_hand(node, agent.id):
            yield Finding(Kind.NODE_BY_HAND, agent.id, node.id, changed)


def _of_ids(records: Sequence[Record]) -> Iterator[Finding]:
    """Headscale gives each id once, unless it was restored from a backup."""
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for record in records:
        generation = record.generation
        for what, id_ in (("node", generation.node_id), ("key", generation.preauth_key_id)):
            if id_ is not None:
                holders[f"{what} {id_}"].append(record.agent.id)
    for about, agents in holders.items():
        for agent_id in agents if len(agents) > 1 else ():
            yield Finding(Kind.ID_TWICE, agent_id, about)


def _of_volume(volume: Volume, record: Record | None, *, is_gone: bool) -> Iterator[Finding]:
    if record is None:
        yield Finding(Kind.ORPHAN_VOLUME if is_gone else Kind.UNKNOWN_VOLUME, volume.agent_id, volume.ref)
    elif volume.generation < record.agent.generation and record.agent.state not in _ENDING:
        yield Finding(Kind.OLD_VOLUME, volume.agent_id, volume.ref)


def _of_node(node: Node, record: Record | None, now: datetime) -> Iterator[Finding]:
    agent_id = agent_of(node.tags)
    if record is None:
        yield Finding(Kind.ORPHAN_NODE, agent_id, node.id)
    elif is_extra(node, record):
        yield Finding(Kind.EXTRA_NODE, agent_id, node.id)
    elif node.online and (ended_at := _ended_at(record)) is not None and now - ended_at >= ONLINE_GRACE:
        told = f"its instance ended at {ended_at:%Y-%m-%d %H:%M:%S} UTC: does another machine have its state or key?"
        yield Finding(Kind.NODE_ONLINE, agent_id, node.id, told)


def _ended_at(record: Record) -> datetime | None:
    """Since when nothing of a stopped agent runs; None while something may, as with one that is started by hand."""
    agent, run = record.agent, record.run
    if agent.state is not State.STOPPED or agent.external:
        return None
    return agent.updated_at if run is None or run.started_at is None else run.ended_at


def _of_key(key: PreAuthKey, record: Record | None, *, is_used: bool, now: datetime) -> Iterator[Finding]:
    agent_id = agent_of(key.tags)
    is_alive = key.expires_at is None or key.expires_at > now
    if record is not None and record.generation.preauth_key_id == key.id:
        # One that was expired lives again when the clock of Headscale's machine is put back.
        if is_alive and (record.agent.state in _HAS_JOINED or record.generation.preauth_key_expired):
            yield Finding(Kind.LIVE_KEY, agent_id, key.id)
    elif not is_used:
        # A key goes only after its node: a node without its key cannot come back after a restart of Headscale.
        live = Kind.ORPHAN_KEY if record is None else Kind.EXTRA_KEY
        yield Finding(live if is_alive else Kind.SPENT_KEY, agent_id, key.id)
    elif is_alive and record is not None:
        # By a node of before, or by another agent's that registered again with it: neither is to do so once more.
        yield Finding(Kind.LIVE_KEY, agent_id, key.id)
