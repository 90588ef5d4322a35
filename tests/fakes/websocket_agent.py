"""An agent that sends every WebSocket message back, by a well-known library: `PORT=8000 python websocket_agent.py`."""

from __future__ import annotations

import asyncio
import http
import os

from websockets.asyncio.server import ServerConnection, serve
from websockets.http11 import Request, Response


async def echo(socket: ServerConnection) -> None:
    async for message in socket:
        await socket.send(message)


def health(socket: ServerConnection, request: Request) -> Response | None:
    if request.headers.get("Upgrade") is None:
        return socket.respond(http.HTTPStatus.OK, '{"ready": true}')
    return None


async def main() -> None:
    port = int(os.environ["PORT"])
    async with serve(echo, "127.0.0.1", port, process_request=health, max_size=None, ping_interval=None) as server:
        print("listening", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
