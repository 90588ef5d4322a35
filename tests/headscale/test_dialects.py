"""Which API level a server has, by what it says and by what it serves."""

from __future__ import annotations

import pytest

from elizacloud.headscale.dialects import DIALECTS, level_of_paths, level_of_text


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("v0.29.2", (0, 29)),
        ("0.27.1", (0, 27)),
        ("v0.28.0-beta.1", (0, 28)),
        ("v0.30.0+dirty", (0, 30)),
        ("v0.29.2+devcontrol.1", (0, 29)),
        ("v1.0.0", (1, 0)),
        ("dev", None),
        ("", None),
        ("unknown", None),
        ("v0", None),
    ],
)
def test_the_level_of_a_version_text(text: str, level: tuple[int, int] | None) -> None:
    assert level_of_text(text) == level


KEY = "/api/v1/preauthkey"


@pytest.mark.parametrize(
    ("paths", "key_methods", "level"),
    [
        ({KEY, "/api/v1/health", "/api/v1/policy/check"}, {"get", "post", "delete"}, (0, 29)),
        ({KEY, "/api/v1/health"}, {"get", "post", "delete"}, (0, 28)),
        ({KEY, "/api/v1/health"}, {"get", "post"}, (0, 27)),
        ({KEY}, {"get", "post"}, (0, 26)),
        ({"/api/v1/other"}, set[str](), None),
        (set[str](), set[str](), None),
    ],
)
def test_the_level_of_a_swagger_document(paths: set[str], key_methods: set[str], level: tuple[int, int] | None) -> None:
    assert level_of_paths(paths, key_methods=key_methods) == level


def test_only_027_cannot_delete_keys_and_needs_an_owner() -> None:
    assert [level for level, dialect in DIALECTS.items() if not dialect.keys_can_be_deleted] == [(0, 27)]
    assert [level for level, dialect in DIALECTS.items() if dialect.keys_have_owner] == [(0, 27)]
