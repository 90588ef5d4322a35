"""What differs between the versions of Headscale's API, as data, and how the version is found out.

Sources: proto/headscale/v1/*.proto at v0.27.1, v0.28.0 and v0.29.2; hscontrol/api/v1 at 0.30's development branch.
0.30 also differs in its errors (answers.py), in strict request bodies (we send no field it does not know, and every id
as a string) and in saying 404 where earlier ones say nothing.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

Level = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One API level. Up to 0.27 a pre-auth key belongs to a user, is listed in full text and cannot be deleted."""

    api: Level
    keys_have_owner: bool = False
    keys_expire_by_text: bool = False
    keys_can_be_deleted: bool = True
    tag_fields: tuple[str, ...] = ("tags",)


DIALECTS: dict[Level, Dialect] = {
    (0, 27): Dialect(
        (0, 27),
        keys_have_owner=True,
        keys_expire_by_text=True,
        keys_can_be_deleted=False,
        tag_fields=("forcedTags", "validTags"),
    ),
    (0, 28): Dialect((0, 28)),
    (0, 29): Dialect((0, 29)),
    (0, 30): Dialect((0, 30)),
}
SUPPORTED = "0.27 to 0.30"

_NUMBERED = re.compile(r"v?(\d+)\.(\d+)(?:\.\d+)?(?:[-+].*)?")


def level_of_text(version: str) -> Level | None:
    """The level of a text like `v0.29.2`; None for one that names none, like the `dev` of a build from a checkout."""
    numbered = _NUMBERED.fullmatch(version.strip())
    return (int(numbered[1]), int(numbered[2])) if numbered else None


def level_of_paths(paths: Collection[str], *, key_methods: Collection[str]) -> Level | None:
    """The level of a server by the paths of its Swagger document (`key_methods`: those of /api/v1/preauthkey).

    None when they are not Headscale's.
    """
    if "/api/v1/preauthkey" not in paths:
        return None
    if "/api/v1/policy/check" in paths:
        return (0, 29)
    if "delete" in key_methods:
        return (0, 28)
    if "/api/v1/health" in paths:
        return (0, 27)
    return (0, 26)
