"""What outlives a process: agents and their history, tokens, claims. One repository a noun, SQLite or PostgreSQL."""

from elizacloud.cipher import Cipher, new_secret_key
from elizacloud.store.agents import Page, Record
from elizacloud.store.idempotency import Claim, Outcome
from elizacloud.store.installation import Marks, regressed
from elizacloud.store.leases import Fence, Lease, Leases
from elizacloud.store.sessions import CliSession
from elizacloud.store.signing_keys import Purpose, SigningKey
from elizacloud.store.store import Store, sqlite_url
from elizacloud.store.tickets import Ticket

__all__ = [
    "Cipher",
    "Claim",
    "CliSession",
    "Fence",
    "Lease",
    "Leases",
    "Marks",
    "Outcome",
    "Page",
    "Purpose",
    "Record",
    "SigningKey",
    "Store",
    "Ticket",
    "new_secret_key",
    "regressed",
    "sqlite_url",
]
