"""How long to wait before a child is started again. Pure: time and chance come in as numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Exponential with a cap; jitter shortens a delay, so that children that died together do not return together."""

    first_seconds: float = 0.2
    factor: float = 2.0
    cap_seconds: float = 30.0
    jitter: float = 0.25
    """The share of a delay that chance may take off, 0 to 1."""
    reset_after_seconds: float = 60.0
    """A child that stayed up this long is healthy: the next delay is the first one again."""

    def delay_seconds(self, failures: int, chance: float) -> float:
        """The wait after the `failures`-th short life in a row (1 is the first); `chance` is uniform in [0, 1)."""
        # The exponent is bounded because a float overflows long before a supervisor gives up.
        full = min(self.cap_seconds, self.first_seconds * self.factor ** min(failures - 1, 64))
        return full * (1 - self.jitter * chance)

    def failures_after(self, failures: int, uptime_seconds: float) -> int:
        """The count of short lives in a row, once a child has exited after `uptime_seconds`."""
        return 1 if uptime_seconds >= self.reset_after_seconds else failures + 1
