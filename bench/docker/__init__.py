"""Agents in containers: how long they take to be there and to come back, and what they cost."""
