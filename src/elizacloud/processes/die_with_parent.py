"""`python -I -S die_with_parent.py SIGNAL PARENT_PID PROGRAM ARGV...`: run PROGRAM, with SIGNAL when the parent dies.

Only a process itself can ask for this (prctl(2), PR_SET_PDEATHSIG), so it must happen after the fork and before the
exec. Python code between the two, in a forked copy of a process with threads, may deadlock; hence this script. It
costs about 10 ms, knows nothing of the package, and keeps the pid.

The kernel forgets the wish at an exec of a set-uid program or one with file capabilities; leftovers.py is for those.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
STANDARD_SIGNALS = range(1, 32)


def main() -> None:
    death_signal, parent_pid, program, *argv = sys.argv[1:]
    libc = ctypes.CDLL(None, use_errno=True)
    # Ignored signals stay ignored over an exec: Python ignores two itself, and `nohup` or a script's `&` some more.
    for number in STANDARD_SIGNALS:
        libc.signal(number, None)
    if libc.prctl(PR_SET_PDEATHSIG, int(death_signal), 0, 0, 0) != 0:
        sys.exit(f"cannot tie this process to its parent: {os.strerror(ctypes.get_errno())}")
    # A parent that died before the call above sent no signal: then this process has another parent by now.
    if os.getppid() != int(parent_pid):
        sys.exit(1)
    try:
        os.execv(program, argv)  # noqa: S606
    except OSError as error:
        sys.exit(f"cannot run {program}: {error.strerror}")


if __name__ == "__main__":
    main()
