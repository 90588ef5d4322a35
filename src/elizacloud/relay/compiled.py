"""Whether the data path is native code: from the same sources, in a wheel that `make compiled` built (decision 0017)."""

from __future__ import annotations

from elizacloud.relay import exchange

COMPILED = not exchange.__file__.endswith(".py")
