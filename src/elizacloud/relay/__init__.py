"""The relay: the front door, and the data path from a client to an agent on the tailnet.

One request, in the order of the modules:

    server.py       a client's connection: requests in, answers out, backpressure, deadlines
    tls.py          the certificate of a listener that speaks TLS itself
    http1/          reading one head, one body, and deciding where a message ends: pure
    edge.py         what is known of a request at once, and what every answer carries, whose ever it is; of this,
                    forwarded.py: who the client is; trace.py: ids; cors.py: which origins may read the answer
    front.py        which agent, or the API: pure
    access.py       who asks, and may they: by the rules of auth/
    limits.py       and is there room for one more
    intake.py       a request's body, held to its cap and to a least rate
    destination.py  an agent or the API, alike to an exchange
    exchange.py     one request and its answer
    turns.py        which owner is served next when much has come
    hygiene.py      which headers pass, in both directions: pure
    reach.py        which upstream an agent has now, checked against the netmap
    pool.py         connections to one upstream that wait to be used again
    shared_dials.py how many dials at a time, and what becomes of those who wait
    upstream.py     one connection to an agent or to the API
    dial.py         how such a connection is made
    answers.py      what the relay itself answers
    access_log.py   one line a request, when it is over

link/ connects a worker to the control plane, probe.py answers its probes; worker.py puts all of it together.
"""
