"""The tree of commands, and what wraps each."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import elizacloud
from elizacloud import __version__, errors
from elizacloud.cli.command import exit_code_of
from tests.cli.conftest import Cli

HEAVY = ("fastapi", "sqlalchemy", "aiohttp", "uvloop", "structlog", "alembic")


def test_version(stranger: Cli) -> None:
    assert stranger("version").stdout == f"{__version__}\n"
    assert json.loads(stranger("version", "--json").stdout)["version"] == __version__


def test_help_names_every_command_and_the_exit_codes(stranger: Cli) -> None:
    shown = stranger("--help").stdout
    for name in ("up", "serve", "relay", "agent", "token", "login", "logout", "doctor", "settings", "version"):
        assert f" {name} " in shown
    assert "6 timed out" in " ".join(shown.split())


def test_the_tree_is_imported_without_what_is_slow() -> None:
    code = f"import sys, elizacloud.cli.root; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_command_and_the_module_are_the_same_program() -> None:
    shown = subprocess.run([sys.executable, "-m", "elizacloud", "version"], capture_output=True, text=True, check=True)
    assert shown.stdout == f"{__version__}\n"


@pytest.mark.parametrize("name", ["up", "serve", "relay"])
def test_wrong_settings_keep_a_process_from_starting(stranger: Cli, name: str) -> None:
    result = stranger(name, ELIZACLOUD_LOG_LEVEL="loud")
    assert result.exit_code == 1
    assert result.stderr.startswith("elizacloud: cannot use the settings: ELIZACLOUD_LOG_LEVEL: ")


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (errors.NotFound("x"), 3),
        (errors.Forbidden("x"), 4),
        (errors.HeadscaleUnavailable("x"), 5),
        (errors.Unavailable("x", code="timed_out"), 6),
        (errors.Misconfigured("x"), 1),
    ],
)
def test_exit_codes(error: errors.Error, exit_code: int) -> None:
    assert exit_code_of(error) == exit_code


def test_every_command_takes_json() -> None:
    folder = Path(elizacloud.__file__).parent / "cli"
    processes = {"up.py", "serve.py", "relay.py"}
    for file in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or file.name in processes:
                continue
            if any(isinstance(made, ast.Name) and made.id == "command" for made in node.decorator_list):
                assert "as_json" in [argument.arg for argument in node.args.args], f"{file.name}: {node.name}"
