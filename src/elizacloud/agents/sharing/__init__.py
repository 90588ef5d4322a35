"""Several control planes on one PostgreSQL: who drives which agents, and how each learns what the others did.

`shards` decides; `leases` takes, keeps and loses; `hold` is what runs under a lease; `relays` and `follower` keep the
relays of every control plane at one state. On SQLite there is one control plane, and `Alone` stands for all of it.
"""
