"""What a process and its children use is told at once and whole; what has gone counts as nothing."""

from __future__ import annotations

import os
import subprocess
import sys

from elizacloud.processes.usage import usage_of_trees

MEGABYTE_BYTES = 1024 * 1024


def test_a_process_that_has_just_begun_has_memory() -> None:
    with subprocess.Popen(["/bin/sh", "-c", "read line"], stdin=subprocess.PIPE) as child:
        _, memory_bytes = usage_of_trees([child.pid])

    assert memory_bytes > 0


def test_what_a_process_has_started_counts_too() -> None:
    code = (
        "import subprocess, sys\n"
        "held = 'held = bytearray(b\"x\") * (32 * 1024 * 1024); print(1, flush=True); input()'\n"
        "subprocess.run([sys.executable, '-c', held])"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        cpu_seconds, memory_bytes = usage_of_trees([parent.pid])

    assert memory_bytes > 32 * MEGABYTE_BYTES
    assert cpu_seconds > 0


def test_what_has_gone_counts_as_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as child:
        child.wait()

    assert usage_of_trees([child.pid]) == (0, 0)
    assert usage_of_trees([child.pid, os.getpid()])[1] > 0
