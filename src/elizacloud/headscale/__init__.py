"""Headscale: one interface for its versions, the policy we write, and a server of our own to supervise."""
