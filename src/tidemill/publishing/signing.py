"""Signatures of receipts: Ed25519, by a key that a server or a laptop makes at first use. Used by `publisher`'s callers
and by `verifying`.

A signature is over all of the receipt but its own value. It says which key made it and whose key that is: a server's
vouches for what a service did, a laptop's for what somebody ran there.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill.domain.errors import InvalidValue
from tidemill.domain.receipt import Receipt, canonical
from tidemill.objects.keyfile import made_once

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALGORITHM = "ed25519"
SERVER, LAPTOP = "server", "laptop"
SERVER_KEY_FILE = "receipt-key.pem"
LAPTOP_KEY_FILE = "run-receipt-key.pem"


@dataclass(frozen=True)
class Signer:
    """path: of the key, made when it is first needed (mode 0600). holder: SERVER or LAPTOP."""

    path: Path
    holder: str

    @cached_property
    def _key(self) -> Ed25519PrivateKey:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # 20 ms, and only at the end
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key = load_pem_private_key(made_once(self.path, _new_key), password=None)
        if not isinstance(key, Ed25519PrivateKey):
            raise InvalidValue(f"{self.path} is no Ed25519 key.", remedy="Move it away; a new one is made.")
        return key

    @cached_property
    def public_key(self) -> str:
        """Base64 of the 32 bytes."""
        return base64.b64encode(self._key.public_key().public_bytes_raw()).decode()

    def sign(self, receipt: Receipt) -> Receipt:
        """The receipt with its signature."""
        about = {
            "algorithm": ALGORITHM,
            "holder": self.holder,
            "key": key_id(self.public_key),
            "public_key": self.public_key,
        }
        value = base64.b64encode(self._key.sign(replace(receipt, signature=about).to_json())).decode()
        return replace(receipt, signature={**about, "value": value})


def key_id(public_key: str) -> str:
    """A key's short name: the first 16 hex digits of its sha256."""
    return hashlib.sha256(_decoded(public_key)).hexdigest()[:16]


def signature_fault(receipt: Mapping[str, Any], trusted: str | None) -> str | None:
    """Why the signature of a receipt (as parsed) does not hold, in words; None if it does.

    trusted: the public key in base64, or its id, that it has to be of; None takes the one that the receipt names.
    """
    from cryptography.exceptions import InvalidSignature  # 20 ms, and only where something is verified
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    signature = receipt.get("signature")
    if not isinstance(signature, dict):
        return "it is not signed"
    if signature.get("algorithm") != ALGORITHM:
        return f"its signature is of the kind {signature.get('algorithm')!r}, not {ALGORITHM}"
    public_key = signature.get("public_key")
    try:
        name = key_id(str(public_key))
        if signature.get("key") != name:
            return f"it names the key {signature.get('key')!r}, but carries {name}"
        if trusted is not None and trusted not in (public_key, name):
            return f"it is signed by the key {name}, not by {trusted}"
        about = {name: value for name, value in signature.items() if name != "value"}
        signed = canonical({**receipt, "signature": about})
        Ed25519PublicKey.from_public_bytes(_decoded(str(public_key))).verify(_decoded(str(signature["value"])), signed)
    except InvalidSignature:
        return "its signature is not of this receipt: something in it was changed"
    except (KeyError, ValueError, InvalidValue) as error:
        return f"its signature cannot be read: {error}"
    return None


def _new_key() -> bytes:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # as above
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidValue(f"{text[:80]!r} is not base64.", field="signature") from error
