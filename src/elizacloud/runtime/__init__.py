"""Where instances run. `Runtime` is the interface: one folder an implementation, one contract suite for all.

protocol.py is the interface, hosts.py is several hosts as one, environment.py what an agent finds in its environment under any
of them, beside.py calls that act beside each other.
"""
