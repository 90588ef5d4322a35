"""The one policy that we write: static, default-deny, the same whatever the agents. Pure functions, no I/O.

The relay reaches agents on one port; nothing else is open, so agents never see each other. A Headscale whose database
holds no policy, or one without rules, allows everything: the policy has to be there before the first join. One rule and
no tenant in it: at each change Headscale walks every pair of nodes times every rule (hscontrol/policy/v2/policy.go).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from elizacloud.errors import Invalid
from elizacloud.headscale.protocol import Policy
from elizacloud.model import AGENT_PORT, TAG_AGENT, TAG_OPERATOR, TAG_RELAY

GRANTS_SINCE = (0, 29)
"""Older ones reject the field `grants` (hscontrol/policy/v2/types.go, v0.28.0) and have `acls` only."""

_OUR_TAGS = (TAG_AGENT, TAG_OPERATOR, TAG_RELAY)
_TAG = re.compile(r"tag:[a-z][a-z0-9-]*")
# Sections that open nothing by themselves; in any other one we do not know what a policy allows.
_HARMLESS = {"tagOwners", "grants", "acls", "groups", "hosts", "tests", "sshTests", "randomizeClientPort"}
_HUJSON_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|//[^\n]*|/\*.*?\*/|,(?=(?:\s|//[^\n]*|/\*.*?\*/)*[}\]])', re.DOTALL)


class Rule(NamedTuple):
    """One thing that is allowed, whether it was written as a grant or as an ACL; `ports` is like `tcp:2138`."""

    source: str
    destination: str
    ports: str


def check_tags(tags: Sequence[str]) -> None:
    """Raise Invalid unless there are tags and Headscale takes each (a prefix, lower case, digits and hyphens)."""
    if not tags:
        raise Invalid("cannot create a pre-auth key without tags: its node would be allowed nothing; name its tags")
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise Invalid(f"cannot put the tag {tag!r} on a pre-auth key: use tag:, a letter, then a-z, 0-9 and -")


def default_policy(api: tuple[int, int], *, operator: bool = False) -> Policy:
    """The policy as a Headscale of that API level takes it; `operator` lets tag:operator reach agents as well."""
    sources = [TAG_RELAY, TAG_OPERATOR] if operator else [TAG_RELAY]
    policy: dict[str, Any] = {"tagOwners": {tag: [] for tag in _OUR_TAGS}}
    if api >= GRANTS_SINCE:
        policy["grants"] = [{"src": sources, "dst": [TAG_AGENT], "ip": [f"tcp:{AGENT_PORT}"]}]
    else:
        policy["acls"] = [{"action": "accept", "proto": "tcp", "src": sources, "dst": [f"{TAG_AGENT}:{AGENT_PORT}"]}]
    return policy


def parse_policy(text: str) -> Policy | None:
    """A stored policy, which people may have written with comments and trailing commas; None when it is empty.

    Raises Invalid when it is neither JSON nor HuJSON.
    """
    bare = _HUJSON_TOKEN.sub(lambda token: token[0] if token[0].startswith('"') else " ", text).strip()
    if not bare:
        return None
    try:
        policy = json.loads(bare)
    except json.JSONDecodeError as error:
        raise Invalid(f"cannot read the policy: it is not HuJSON ({error.msg}, line {error.lineno})") from error
    if not isinstance(policy, dict):
        raise Invalid("cannot read the policy: it is not an object")
    return policy


def differences(stored: Policy | None, wanted: Policy) -> tuple[str, ...]:
    """Why the stored policy does not do what the wanted one does, a clause each; empty when it does.

    It may have rules of its own, as long as they surely touch neither agents nor relays.
    """
    if stored is None or ("grants" not in stored and "acls" not in stored):
        return ("it has no rules, which to Headscale means that everything is allowed",)
    return tuple(_differences(stored, wanted))


def is_equivalent(stored: Policy | None, wanted: Policy) -> bool:
    return not differences(stored, wanted)


def _differences(stored: Policy, wanted: Policy) -> Iterator[str]:
    for section in sorted(set(stored) - _HARMLESS):
        if stored[section]:
            yield f"its section {section!r} may open more than we know of"
    owners = stored.get("tagOwners")
    for tag in _OUR_TAGS:
        if not isinstance(owners, Mapping) or tag not in owners:
            yield f"{tag} is not in its tagOwners"
        elif owners[tag]:
            yield f"{tag} has owners, who could give it to machines of their own"
    allowed, needed = set(_rules(stored)), set(_rules(wanted))
    for rule in sorted(needed - allowed):
        yield f"it does not let {rule.source} reach {rule.destination} on {rule.ports}"
    for rule in sorted(allowed - needed):
        if not (_is_foreign(rule.source) and _is_foreign(rule.destination)):
            yield f"it lets {rule.source} reach {rule.destination} on {rule.ports}"


def _is_foreign(alias: str) -> bool:
    """Surely neither an agent nor a relay: a tag of somebody else, a user, or a machine that no tag is on."""
    if alias.startswith("tag:"):
        return alias not in _OUR_TAGS and not alias.startswith(("tag:a-", "tag:i-"))
    return "@" in alias or alias in ("autogroup:member", "autogroup:self")


def _rules(policy: Policy) -> Iterator[Rule]:
    for grant in _objects(policy.get("grants")):
        for source in _strings(grant.get("src")):
            for destination in _strings(grant.get("dst")):
                # An `app` capability opens no port, but what it does open is not ours to judge.
                for ports in _strings(grant.get("ip")) or ["something"]:
                    yield Rule(source, destination, ports)
    for acl in _objects(policy.get("acls")):
        protocol = str(acl.get("proto") or "*")
        for source in _strings(acl.get("src")):
            for target in _strings(acl.get("dst")):
                destination, _, ports = target.rpartition(":")
                for port in ports.split(","):
                    yield Rule(source, destination, f"{protocol}:{port}")


def _objects(value: object) -> list[Mapping[str, Any]]:
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, list) else []


def _strings(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
