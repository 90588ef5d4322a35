"""The house rules that a machine can check: size of a module, a first screen in each, no sleeping tests."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted((ROOT / "src").rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
LONGEST_LINES = 400


@pytest.mark.parametrize("module", MODULES, ids=lambda path: str(path.relative_to(ROOT / "src")))
def test_a_module_is_one_idea(module: Path) -> None:
    lines = module.read_text().count("\n")
    assert lines <= LONGEST_LINES, f"{module.name} has {lines} lines: it holds more than one idea, part them"


@pytest.mark.parametrize("module", [path for path in MODULES if path.stat().st_size], ids=lambda path: path.name)
def test_a_module_says_why_it_exists(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text())), f"{module} has no docstring"


@pytest.mark.parametrize("test", TESTS, ids=lambda path: str(path.relative_to(ROOT / "tests")))
def test_no_test_sleeps(test: Path) -> None:
    naps = re.findall(r"(?:time|asyncio)\.sleep\((?!0\))", test.read_text())
    assert not naps or test.name in (Path(__file__).name, "virtual_time.py"), "await the event instead"
