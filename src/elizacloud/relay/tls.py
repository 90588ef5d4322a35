"""TLS on the relay's own listener: TLS 1.2 and later, HTTP/1.1 only, and a certificate that may be renewed meanwhile.

The files are looked at by time and inode, which also sees a rename or a changed symbolic link. New handshakes get the
new certificate; connections that are open keep theirs. A pair that cannot be used leaves the old one in place.
"""

from __future__ import annotations

import ssl
from pathlib import Path

import structlog

from elizacloud.errors import Misconfigured

logger = structlog.get_logger()

_Stamp = tuple[tuple[int, int, int], ...]


class ServerCertificate:
    def __init__(self, certificate: Path, key: Path) -> None:
        """`certificate` holds the whole chain, in PEM. Raises Misconfigured when the two cannot be used."""
        self._certificate = certificate
        self._key = key
        self._seen: _Stamp | None = None
        try:
            self._seen = self._stamp()
            self.context = self._load(_new_context())
        except (OSError, ValueError) as error:
            raise Misconfigured(
                f"cannot serve TLS with {certificate} and {key}: {error}; give a readable PEM chain and its own key"
            ) from error

    def refresh(self) -> bool:
        """Take the files' new content, if they changed; True when new handshakes get another certificate from now on."""
        stamp: _Stamp | None = None
        try:
            stamp = self._stamp()
            if stamp == self._seen:
                return False
            self._load(_new_context())  # a pair that does not fit would leave a context without either
            self._load(self.context)
        except (OSError, ValueError) as error:
            if stamp != self._seen:  # said once for each change, not once a second
                logger.error("new TLS certificate not taken; the old one is kept", reason=str(error))
            return False
        finally:
            self._seen = stamp
        logger.info("TLS certificate renewed", file=str(self._certificate))
        return True

    def _load(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.load_cert_chain(self._certificate, self._key, password=_no_password)
        return context

    def _stamp(self) -> _Stamp:
        stats = (self._certificate.stat(), self._key.stat())
        return tuple((stat.st_mtime_ns, stat.st_ino, stat.st_size) for stat in stats)


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    return context


def _no_password() -> str:
    """Called for an encrypted key; without it OpenSSL would ask on the terminal, and wait."""
    raise ValueError("the key is encrypted")
