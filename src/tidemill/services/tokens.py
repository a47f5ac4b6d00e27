"""Tokens of instances: `<instance>.<expiry>.<signature>`, good for one instance and for a time.

Nothing is stored: the signature is an HMAC over the rest with a key in the data folder. Whoever reads an instance's
manifest can speak for that instance alone, and only until it has ended. Issued by `loops.place`, checked by
`services.runner`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from pathlib import Path

from tidemill.domain.errors import NotAuthenticated
from tidemill.domain.ids import InstanceId
from tidemill.objects.keyfile import made_once

KEY_FILE = "secret.key"
_KEY_BYTES = 32
_TOKEN_MAX = 512


def secret_key(folder: Path) -> bytes:
    """The server's own key of a data folder, made at first use (mode 0600)."""
    return made_once(folder / KEY_FILE, lambda: secrets.token_bytes(_KEY_BYTES))


class Tokens:
    """ttl_s: how long a token is good. A new one is given when a quarter of that has passed."""

    def __init__(self, key: bytes, ttl_s: float) -> None:
        self._key = key
        self._ttl_s = ttl_s

    def issue(self, instance: InstanceId, now: float) -> str:
        """now: seconds since the epoch."""
        claim = f"{instance}.{int(now + self._ttl_s)}"
        return f"{claim}.{self._signature(claim)}"

    def check(self, token: str, now: float) -> tuple[InstanceId, bool]:
        """The instance that the token is for, and whether it is time for a new one. Raises NotAuthenticated."""
        claim, _, signature = token[:_TOKEN_MAX].rpartition(".")
        instance, _, expiry = claim.rpartition(".")
        good = hmac.compare_digest(self._signature(claim).encode(), signature.encode("utf-8", "surrogateescape"))
        if not good or int(expiry) <= now:
            raise NotAuthenticated(
                "the instance's token is wrong." if not good else "the instance's token has expired."
            )
        return InstanceId(instance), int(expiry) - now < 0.75 * self._ttl_s

    def _signature(self, claim: str) -> str:
        digest = hmac.new(self._key, claim.encode("utf-8", "surrogateescape"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")
