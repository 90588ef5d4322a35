"""Where instances run. `Runtime` is the interface: one folder an implementation, one contract suite for all."""
