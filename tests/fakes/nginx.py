"""nginx in front of a worker, set up as its documentation says for streams: the real thing beside rewriting_proxy.py."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.fakes.rewriting_proxy import HOST
from tests.ports import free_port

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")

_CONFIG = """
daemon off;
master_process off;
pid {dir}/nginx.pid;
error_log {dir}/error.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {dir}/body;
    proxy_temp_path {dir}/proxy;
    fastcgi_temp_path {dir}/fastcgi;
    uwsgi_temp_path {dir}/uwsgi;
    scgi_temp_path {dir}/scgi;
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream relay {{ server 127.0.0.1:{upstream_port}; keepalive 8; }}
    server {{
        listen 127.0.0.1:{port};
        client_max_body_size 0;
        location / {{ return 200 "the platform's own page"; }}
        location /api/ {{
            proxy_pass http://relay;
            proxy_http_version 1.1;
            proxy_buffering off;
            proxy_request_buffering off;
            proxy_read_timeout {patience_milliseconds}ms;
            proxy_set_header Host $http_host;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Host {host};
            proxy_set_header X-Forwarded-Proto https;
        }}
    }}
}}
"""


class Nginx:
    def __init__(self, upstream_port: int, directory: Path, *, read_timeout_seconds: float) -> None:
        self._directory = directory
        self.port = free_port()
        self._config = _CONFIG.format(
            dir=directory,
            port=self.port,
            upstream_port=upstream_port,
            patience_milliseconds=round(read_timeout_seconds * 1000),
            host=HOST,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Nginx]:
        assert NGINX is not None
        config = self._directory / "nginx.conf"
        config.write_text(self._config)
        process = await asyncio.create_subprocess_exec(NGINX, "-p", str(self._directory), "-c", str(config))
        try:
            async with asyncio.timeout(10):
                while not await self._answers():
                    assert process.returncode is None, (self._directory / "error.log").read_text()
                    await asyncio.sleep(0)
            yield self
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True
