"""The last keys of trusted issuers on disk: a control plane that starts while an issuer is away still knows them.

They are public, so the file is no secret; but who can write it can sign, so it lies with the data dir's other files (0600).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import structlog

from elizacloud.auth import jose
from elizacloud.errors import Invalid
from elizacloud.files import replace_private
from elizacloud.upstreams import PublicKey

log = structlog.get_logger()


class KeptKeys:
    """Keys by the URL that they came from. Without a path nothing is kept."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def load(self) -> Mapping[str, tuple[PublicKey, ...]]:
        """What was saved last; nothing when that cannot be used."""
        if self._path is None:
            return {}
        try:
            saved = json.loads(self._path.read_text())
            return {url: tuple(jose.public_key(jwk) for jwk in jwks) for url, jwks in saved.items()}
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, AttributeError, TypeError, Invalid) as error:
            log.error("the kept keys of trusted issuers cannot be used", path=str(self._path), reason=str(error))
            return {}

    def save(self, keys: Mapping[str, tuple[PublicKey, ...]]) -> None:
        """Replace the file as a whole. A failure is told and changes nothing: the keys are in memory."""
        if self._path is None:
            return
        text = json.dumps({url: [json.loads(key.jwk) for key in each] for url, each in keys.items()})
        try:
            replace_private(self._path, text)
        except OSError as error:
            log.error("the keys of trusted issuers cannot be kept", path=str(self._path), reason=str(error))
