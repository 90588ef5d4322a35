import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from elizacloud.processes import SpawnFailed, spawn
from elizacloud.processes.child import Child, Exit
from elizacloud.processes.leftovers import MARK_VARIABLE
from tests.processes.conftest import ENV, Printed, await_gone, is_running, python

Start = Callable[..., Child]

DEAF = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
signal.pause()
"""
POLITE = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit("bye"))
print("ready", flush=True)
signal.pause()
"""
# A deaf child with a deaf child of its own: in its group, or (with "away") in a session of its own.
FORKING = f"""
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
away = "away" in sys.argv
grandchild = subprocess.Popen([sys.executable, "-c", {DEAF!r}], start_new_session=away, stdout=subprocess.PIPE)
grandchild.stdout.readline()
print("grandchild", grandchild.pid, flush=True)
if "exit" in sys.argv:
    sys.exit(3)
signal.pause()
"""
# An intermediate parent: spawns through us, tells the pid, and lives on.
SPAWNING = """
import asyncio, os, signal, sys
from elizacloud.processes import spawn

async def main():
    when = signal.Signals(int(sys.argv[1]))
    code = sys.argv[2]
    log = lambda line: print(line.decode(), flush=True)
    child = spawn([sys.executable, "-c", code], name="leaf", env=dict(os.environ), log=log, when_parent_dies=when)
    print("leaf", child.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_output_and_exit_status_arrive_whole(start: Start, printed: Printed) -> None:
    async with start("import sys; print('one\\ntwo'); sys.stderr.write('cut off'); sys.exit(3)") as child:
        assert await child.wait() == Exit(3)
    assert sorted(printed.lines) == [b"cut off", b"one", b"two"]


async def test_a_lot_of_output_is_complete_at_exit(start: Start, printed: Printed) -> None:
    async with start("for i in range(50_000): print(i)") as child:
        await child.wait()
    assert printed.lines == [str(i).encode() for i in range(50_000)]


async def test_an_endless_line_is_cut(start: Start, printed: Printed) -> None:
    async with start("print('x' * 10_000_000); print('next')") as child:
        await child.wait()
    assert [len(printed.lines[0]) < 20_000, printed.lines[1]] == [True, b"next"]


async def test_death_by_signal_is_told(start: Start) -> None:
    async with start("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)") as child:
        assert str(await child.wait()) == "killed by SIGSEGV"


async def test_stdin_is_read_then_ends(start: Start, printed: Printed) -> None:
    secret = b"s" * 65536
    async with start("import sys; print(len(sys.stdin.read()))", stdin=secret) as child:
        await child.wait()
        assert printed.lines == [b"65536"]


async def test_without_stdin_there_is_an_end_of_file(start: Start, printed: Printed) -> None:
    async with start("import sys; print(repr(sys.stdin.read()))") as child:
        await child.wait()
    assert printed.lines == [b"''"]


async def test_too_much_stdin_is_refused(start: Start) -> None:
    with pytest.raises(ValueError, match="65537"):
        start("", stdin=b"x" * 65537)


async def test_the_environment_is_only_what_was_given(start: Start, printed: Printed) -> None:
    async with start("import os; print(*os.environ)", env={"A": "1"}) as child:
        await child.wait()
    # Python adds LC_CTYPE to its own environment when it finds no locale.
    assert set(printed.lines[0].decode().split()) - {"LC_CTYPE"} == {"A", MARK_VARIABLE}


async def test_a_child_leads_its_own_session_and_is_itself_after_the_exec(start: Start, printed: Printed) -> None:
    code = "import os; print(os.getpid(), os.getsid(0), os.getpgid(0))"
    async with start(code) as child:
        await child.wait()
    assert printed.lines == [f"{child.pid} {child.pid} {child.pid}".encode()]


async def test_the_first_argument_is_kept(printed: Printed, tmp_path: Path) -> None:
    (tmp_path / "tailscale").symlink_to("/bin/sh")
    async with spawn(
        ["tailscale", "-c", "echo $0"], name="multi-call", env={"PATH": str(tmp_path)}, log=printed
    ) as child:
        await child.wait()
    assert printed.lines == [b"tailscale"]


async def test_default_signal_dispositions_are_restored(start: Start, printed: Printed) -> None:
    async with start("print(open('/proc/self/status').read())", env=ENV) as child:
        await child.wait()
    # Python itself ignores SIGPIPE and SIGXFSZ at its start, so a shell has to tell.
    shell = spawn(["sh", "-c", "grep SigIgn /proc/$$/status"], name="sh", env=ENV, log=printed)
    async with shell:
        await shell.wait()
    standard = (1 << 31) - 1  # the C library keeps two more for itself
    assert int(printed.lines[-1].split()[1], 16) & standard == 0


async def test_descriptors_pass_only_when_named(start: Start, printed: Printed) -> None:
    read_end, write_end = os.pipe()
    try:
        async with start("import os; print(*os.listdir('/proc/self/fd'))", pass_fds=[write_end]) as child:
            await child.wait()
    finally:
        os.close(read_end)
        os.close(write_end)
    # 0, 1, 2, the one passed, and the one that lists the directory.
    descriptors = printed.lines[0].decode().split()
    assert len(descriptors) == 5
    assert str(write_end) in descriptors


async def test_stop_lets_a_child_finish(start: Start, printed: Printed) -> None:
    child = start(POLITE)
    await printed.line(b"ready")
    assert await child.stop(grace_seconds=20) == Exit(1)
    assert printed.lines[-1] == b"bye"


async def test_stop_kills_the_deaf(start: Start, printed: Printed) -> None:
    child = start(DEAF)
    await printed.line(b"ready")
    assert str(await child.stop(grace_seconds=0.05)) == "killed by SIGKILL"
    assert not is_running(child.pid)


async def test_stop_reaches_a_frozen_child(start: Start, printed: Printed) -> None:
    child = start(POLITE)
    await printed.line(b"ready")
    child.signal(signal.SIGSTOP)
    assert await child.stop(grace_seconds=20) == Exit(1)


async def test_stop_twice_and_at_once_agree(start: Start, printed: Printed) -> None:
    child = start(DEAF)
    await printed.line(b"ready")
    async with asyncio.TaskGroup() as group:
        stops = [group.create_task(child.stop(0.05), name=f"stop {i}") for i in range(2)]
    assert {stop.result() for stop in stops} == {await child.stop(), Exit(-signal.SIGKILL)}


@pytest.mark.parametrize("where", ["in the group", "away"])
async def test_stop_ends_a_deaf_grandchild(start: Start, printed: Printed, where: str) -> None:
    child = start(FORKING, where)
    grandchild = int(await printed.line(b"grandchild "))
    await child.stop(grace_seconds=0.05)
    await_gone(grandchild)


async def test_an_exit_takes_the_group_along(start: Start, printed: Printed) -> None:
    async with start(FORKING, "exit") as child:
        grandchild = int(await printed.line(b"grandchild "))
        assert await child.wait() == Exit(3)
        await_gone(grandchild)


async def test_a_grandchild_that_holds_the_pipe_delays_nothing(start: Start, printed: Printed) -> None:
    child = start(FORKING, "exit", "away")
    grandchild = int(await printed.line(b"grandchild "))
    async with asyncio.timeout(20):
        assert await child.wait() == Exit(3)
    assert is_running(grandchild)
    await child.stop()
    await_gone(grandchild)


async def test_a_cancelled_stop_kills_at_once(start: Start, printed: Printed) -> None:
    child = start(FORKING, "away")
    grandchild = int(await printed.line(b"grandchild "))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await child.stop(grace_seconds=600)
    async with asyncio.timeout(20):
        await child.wait()
    await_gone(grandchild)


def no_descriptor(_: int) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def children() -> set[int]:
    """Every child of this process, zombies too."""
    found = set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(stat.read_text().rpartition(")")[2].split()[1]) == os.getpid():
                found.add(int(stat.parent.name))
    return found


async def test_no_descriptor_and_no_zombie_stays(start: Start) -> None:
    async def one() -> None:
        async with start("print('x')") as child:
            await child.wait()

    await one()
    before = (len(os.listdir("/proc/self/fd")), children())
    for _ in range(5):
        await one()
        with pytest.raises(SpawnFailed):
            start("", cwd=Path("/nowhere"))
        with pytest.raises(SpawnFailed):
            start("", env={"A": "nul \0 byte"})
        with pytest.MonkeyPatch.context() as patch, pytest.raises(SpawnFailed):
            patch.setattr(os, "pidfd_open", no_descriptor)
            start("import signal; signal.pause()")
    assert (len(os.listdir("/proc/self/fd")), children()) == before


@pytest.mark.parametrize("program", ["/nowhere/tailscaled", "/etc/passwd", "no-such-program", "/", ""])
async def test_a_program_that_cannot_run_is_named(program: str, printed: Printed) -> None:
    with pytest.raises(SpawnFailed, match="cannot start tailscaled"):
        spawn([program], name="tailscaled", env=ENV, log=printed)


async def test_a_broken_binary_is_told_in_the_log(printed: Printed, tmp_path: Path) -> None:
    broken = tmp_path / "tailscaled"
    broken.write_bytes(b"\x7fELF but not really")
    broken.chmod(0o755)
    async with spawn([broken], name="tailscaled", env=ENV, log=printed) as child:
        assert await child.wait() == Exit(1)
    assert b"cannot run" in printed.lines[0]


@pytest.mark.parametrize("when", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_dies_with_its_parent(when: signal.Signals) -> None:
    code = DEAF if when is signal.SIGKILL else POLITE
    parent = subprocess.Popen([*python(SPAWNING, str(int(when)), code)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    lines = [parent.stdout.readline(), parent.stdout.readline()]
    assert lines[1] == b"ready\n"
    leaf = int(lines[0].split()[1])
    parent.kill()
    parent.wait(20)
    parent.stdout.close()
    await_gone(leaf)


def test_a_parent_that_is_already_gone_is_noticed(tmp_path: Path) -> None:
    from elizacloud.processes import die_with_parent

    witness = tmp_path / "ran"
    command = [sys.executable, "-I", "-S", die_with_parent.__file__, "9", "1", "/bin/touch", "touch", str(witness)]
    assert subprocess.run(command, check=False).returncode == 1
    assert not witness.exists()


def test_the_same_under_uvloop() -> None:
    async def scenario() -> tuple[Exit, list[bytes]]:
        printed = Printed()
        child = spawn(python(POLITE), name="test", env=ENV, log=printed)
        await printed.line(b"ready")
        return await child.stop(grace_seconds=20), printed.lines

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(scenario()) == (Exit(1), [b"ready", b"bye"])
