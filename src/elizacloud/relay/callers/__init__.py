"""Who calls an agent, and may they.

credentials.py   which credential counts at which front, in which order
access.py        whom it stands for, and whether they may reach this agent; caller.py: the answer
session.py       the cookie of an agent's host; tickets.py, ticketed.py: how a browser gets it; pages.py: what it shows
subprotocols.py  a WebSocket's token, and query.py an address's: taken out before the agent sees them
origins.py       from which pages a browser may call with a cookie
assertion.py     what the agent is told of its caller, signed
"""
