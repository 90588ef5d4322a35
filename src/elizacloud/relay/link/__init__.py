"""The link between control plane and relay workers: one unix socket (0600), newline-delimited JSON, both ways.

messages.py  what is said, typed and bounded in size
hub.py       the control plane's end: keeps the table, tells every worker, asks for probes and drains
errands.py   what workers ask for a browser: tickets redeemed, sessions ended
client.py    a worker's end: follows the table, reconnects, answers
snapshot.py  the last table on disk, so that a worker that restarts in an outage still serves
"""
