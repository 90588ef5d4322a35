"""What can go wrong before a child runs; afterwards there is only its exit status."""

from elizacloud.errors import Misconfigured


class SpawnFailed(Misconfigured):
    """The program could not be executed. Caught by `supervise`, which tries again, and by the process runtime."""

    code = "spawn_failed"
