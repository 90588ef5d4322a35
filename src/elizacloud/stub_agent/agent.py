"""What the agent remembers: connectors (on disk), conversations' events for `/ws`, and how it is doing."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections import deque
from pathlib import Path
from typing import Any

from elizacloud.stub_agent.config import Config

REPLAYED_EVENTS = 120
_KEPT_EVENTS = 1500
_SUBSCRIBER_QUEUE = 4096


class Agent:
    """One agent's memory. What a `connectors` call was answered for is on disk before the answer."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.started_at = time.time()
        self._file = config.state_dir / "connectors.json"
        self.connectors: dict[str, Any] = self._load()
        self._events: deque[dict[str, Any]] = deque(maxlen=_KEPT_EVENTS)
        self._next_event = 1
        self._subscribers: set[asyncio.Queue[dict[str, Any]]] = set()

    @property
    def ready(self) -> bool:
        faults = self.config.faults
        return not faults.never_ready and time.time() - self.started_at >= faults.ready_delay_seconds

    @property
    def state(self) -> str:
        return "running" if self.ready else "starting"

    def health(self) -> dict[str, Any]:
        ready = self.ready
        return {
            "ready": ready,
            "runtime": "ok" if ready else "not_initialized",
            "database": "ok" if ready else "unknown",
            "plugins": {"loaded": len(self.connectors), "failed": 0},
            "coordinator": "not_wired",
            "connectors": {
                name: "configured"
                for name, connector in self.connectors.items()
                if not isinstance(connector, dict) or connector.get("enabled") is not False
            },
            "uptime": int(time.time() - self.started_at),
            "agentState": self.state,
            "startup": {"phase": self.state, "attempt": 0},
        }

    def status(self) -> dict[str, Any]:
        cloud = self.config.cloud_provisioned
        return {
            "state": self.state,
            "agentName": self.config.agent_name,
            "model": "stub",
            "startedAt": int(self.started_at * 1000),
            "uptime": int((time.time() - self.started_at) * 1000),
            "startup": {"phase": self.state, "attempt": 0},
            "cloud": {
                "connectionStatus": "connected" if cloud else "disconnected",
                "activeAgentId": self.config.agent_name if cloud else None,
                "cloudProvisioned": cloud,
                "hasApiKey": False,
            },
            "pendingRestart": False,
            "pendingRestartReasons": [],
        }

    def websocket_status(self) -> dict[str, Any]:
        status = self.status()
        return {"type": "status", **{name: value for name, value in status.items() if name not in ("uptime", "cloud")}}

    def save_connector(self, name: str, connector: Any) -> None:
        self._store(self.connectors | {name: connector})
        self.publish("connector", {"name": name, "saved": True})

    def delete_connector(self, name: str) -> bool:
        if name not in self.connectors:
            return False
        self._store({key: value for key, value in self.connectors.items() if key != name})
        self.publish("connector", {"name": name, "saved": False})
        return True

    def publish(self, stream: str, payload: Any) -> None:
        """Tell every `/ws` client, and keep it for those that come later."""
        event = {
            "type": "agent_event",
            "eventId": f"evt-{self._next_event}",
            "version": 1,
            "stream": stream,
            "ts": int(time.time() * 1000),
            "payload": payload,
        }
        self._next_event += 1
        self._events.append(event)
        for queue in self._subscribers:
            if not queue.full():
                queue.put_nowait(event)

    def subscribe(self) -> tuple[list[dict[str, Any]], asyncio.Queue[dict[str, Any]]]:
        """The last events, and a queue of those to come, with none lost between."""
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue(_SUBSCRIBER_QUEUE)
        self._subscribers.add(queue)
        return list(self._events)[-REPLAYED_EVENTS:], queue

    def unsubscribe(self, queue: asyncio.Queue[dict[str, Any]]) -> None:
        self._subscribers.discard(queue)

    def _load(self) -> dict[str, Any]:
        try:
            text = self._file.read_text()
        except FileNotFoundError:
            return {}
        loaded = json.loads(text)
        if not isinstance(loaded, dict):
            raise ValueError(f"cannot read {self._file}: it is not a JSON object")
        return loaded

    def _store(self, connectors: dict[str, Any]) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new = Path(f"{self._file}.new")
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump(connectors, file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._file)
        self.connectors = connectors
