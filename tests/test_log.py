"""What a process logs, as it comes out of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

LOGS = """
import structlog
from elizacloud.log import configure_logging, show_line
configure_logging(json=True, process="test")
log = structlog.get_logger()
for number in range(1000):
    log.info("something", number=number)
show_line(b"a child's")
print("went on")
"""


def logged_to(file: Path) -> str:
    """What the process says on its standard output, while its standard error is this file."""
    with file.open("ab", buffering=0) as output:
        done = subprocess.run(
            [sys.executable, "-c", LOGS], stdout=subprocess.PIPE, stderr=output, timeout=20, check=False
        )
    return done.stdout.decode()


def test_a_fact_is_a_line_on_standard_error(tmp_path: Path) -> None:
    assert logged_to(tmp_path / "log") == "went on\n"
    *said, of_a_child = (tmp_path / "log").read_text().splitlines()
    assert of_a_child == "a child's"
    lines = [json.loads(line) for line in said]
    assert [line["number"] for line in lines] == list(range(1000))
    assert {(line["event"], line["process"], line["level"]) for line in lines} == {("something", "test", "info")}


def test_a_standard_error_that_cannot_be_written_ends_nothing() -> None:
    assert logged_to(Path("/dev/full")) == "went on\n"
