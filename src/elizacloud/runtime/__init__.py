"""Where instances run. `Runtime` is the interface; one file (or folder) an implementation, one contract suite for all."""
