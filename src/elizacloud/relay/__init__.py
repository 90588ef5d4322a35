"""The relay: the front door, and the data path from a client to an agent on the tailnet.

One request, in the order of the modules:

    accepting.py    connections from a listening socket that workers share; tls.py: the certificate it shows
    server.py       a client's connection: requests in, answers out, deadlines; incoming.py: what it sends, as far as wanted
    http1/          reading one head, one body, and deciding where a message ends: pure
    edge.py         what is known of a request at once, and what every answer carries, whose ever it is
    front.py        which agent, or the API: pure
    callers/        who asks, and may they: credentials, sessions, tickets, origins
    limits.py       and is there room for one more; counts.py: of what is open; throttle.py: how fast its bytes may pass
    intake.py       a request's body, held to its cap and to a least rate
    destination.py  an agent or the API, alike to an exchange
    exchange.py     one request and its answer; passing.py: the bytes of both, counted and held to their rate
    turns.py        which owner is served next when much has come
    headers/        which header lines pass, in both directions, and in which words: pure
    reach.py        which upstream an agent has now, checked against the netmap
    dialling/       connections to it: made, begun again, shared, kept
    upstream.py     one connection to an agent or to the API; reading.py: how much of it is read at once
    outgoing.py     when small writes leave, to an agent and to a client
    answers.py      what the relay itself answers
    access_log.py   one line a request, when it is over

link/ connects a worker to the control plane, probe.py answers its probes; worker.py puts all of it together.
"""
