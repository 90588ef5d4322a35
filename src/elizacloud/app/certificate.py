"""The front door's certificate as the settings name it: checked by the supervisor, shown by the workers."""

from __future__ import annotations

from elizacloud.errors import Misconfigured
from elizacloud.relay.tls import ServerCertificate
from elizacloud.settings import Settings


def certificate_of(settings: Settings) -> ServerCertificate | None:
    """What the front door shows; None when it speaks no TLS. Raises Misconfigured."""
    certificate, key = settings.tls_certificate_file, settings.tls_key_file
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise Misconfigured("cannot serve TLS: give both tls_certificate_file and tls_key_file, or neither")
    return ServerCertificate(certificate, key)
