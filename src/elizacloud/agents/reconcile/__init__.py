"""Three truths (the store, the runtime, Headscale) compared now and then, and made one again.

`observe` looks, `diff` says what differs (pure), `guards` says what may be done about it now (pure), `repair` does it.
"""
