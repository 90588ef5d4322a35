"""A private agent cloud: agents on a Headscale tailnet, reached only through an authenticated relay.

Two flows, two folders:

    create  -> key -> container -> join -> ready      agents/   uses runtime/ headscale/ store/
    request -> authorise -> upstream -> dial -> agent relay/    uses tailnet/ and its upstream table

ARCHITECTURE.md says which module to change for what.
"""

__version__ = "0.1.0"
