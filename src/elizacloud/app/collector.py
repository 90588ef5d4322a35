"""Python's garbage collector, told what a long-lived process of ours is like."""

from __future__ import annotations

import gc

_THRESHOLDS = 20_000, 20, 20


def spare_the_collector() -> None:
    """What is here when the process begins to serve stays until it ends, and requests leave no cycles: to look for garbage as
    often as Python does by itself would take a twentieth of the time, and half a second at once with ten thousand agents."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
