import socket

import pytest
from fastapi import FastAPI

from elizacloud.app.http import served
from elizacloud.app.listening import listening_socket
from elizacloud.errors import Misconfigured


def test_a_client_that_vanished_is_looked_for() -> None:
    with listening_socket("127.0.0.1", 0) as listener:
        listener.setblocking(True)
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as connection:
            assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            silent, between, most = (
                connection.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert silent + between * most == 120
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 0


async def test_an_address_that_cannot_be_had_is_told_with_the_setting_to_change() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(Misconfigured, match=r"give another --.*port") as taken:
            listening_socket("127.0.0.1", port)
        assert taken.value.reason == "port_in_use"
        for address in (f"127.0.0.1:{port}", f"192.0.2.1:{port}"):
            with pytest.raises(Misconfigured, match="give another report_listen"):
                await served(FastAPI(), address=address).__aenter__()
