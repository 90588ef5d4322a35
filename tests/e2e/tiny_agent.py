"""The smallest agent that says who it is, for tests with hundreds of runs: `python -S -E tiny_agent.py`.

It asks for no token: what keeps a caller from the wrong agent has to be the relay, and not that agent's own gate.
"""

import os
import socket
import threading

WHO = '{"ready": true, "agentId": "%s", "generation": %s, "run": %s}' % (  # noqa: UP031
    os.environ["CONTAINER_ID"],
    os.environ["ELIZACLOUD_GENERATION"],
    os.environ["ELIZACLOUD_RUN"],
)
ANSWER = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(WHO)}\r\n\r\n{WHO}".encode()


def serve(connection: socket.socket) -> None:
    heads = b""
    try:
        while part := connection.recv(65536):
            heads += part
            *asked, heads = heads.split(b"\r\n\r\n")
            for _ in asked:
                connection.sendall(ANSWER)
    except OSError:
        pass
    finally:
        connection.close()


with socket.create_server(("127.0.0.1", int(os.environ["PORT"]))) as listener:
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
