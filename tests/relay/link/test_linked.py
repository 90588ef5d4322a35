"""Whether the process of a worker that was lost is still there."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

from elizacloud.relay.link.linked import Lost, Process


def test_a_process_lives_until_it_has_ended_and_another_with_its_id_is_not_it() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = Process.of(child.pid)
    assert process.lives()
    child.communicate(b"\n")
    assert not process.lives()
    ours = Process.of(os.getpid())
    assert ours.lives()
    assert not replace(ours, started="0").lives()


def test_a_worker_whose_process_is_seen_may_serve_however_long_it_is_lost() -> None:
    assert Lost(Process.of(os.getpid()), 0.0).may_serve(1e6)
