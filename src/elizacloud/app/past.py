"""`seen.json` in the data dir: how far the database had come, where a restored database does not take it back.

Deleting it forgets: the next start takes what it finds for right.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from elizacloud.agents.reconcile.past import Past
from elizacloud.app.data_dir import write_private
from elizacloud.errors import Misconfigured
from elizacloud.store import Marks


class JsonPast:
    """A PastFile. Raises Misconfigured when the file is damaged: to forget is the operator's decision."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def read(self) -> Past:
        try:
            kept = json.loads(self._file.read_text())
            return Past(
                Marks(
                    int(kept["marks"]["epoch"]),
                    int(kept["marks"]["last_event"]),
                    float(kept["marks"].get("accepted", 0)),
                ),
                str(kept["headscale_key"]),
                tuple(map(str, kept["relays"])),
                str(kept["suspicion"]),
            )
        except FileNotFoundError:
            return Past()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Misconfigured(
                f"cannot read {self._file}: it is damaged; restore it, or delete it when the database is right"
            ) from error

    def write(self, past: Past) -> None:
        write_private(self._file, json.dumps(asdict(past)) + "\n")
