"""Who is asking: credentials of the JSON API, and what an actor may touch.

One credential is made at a server's first start. Checking goes through `Access.authenticate` alone, so that keys of
many users can come from the store later without the doors noticing.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tidemill.domain.errors import NotAllowed, NotAuthenticated
from tidemill.domain.ids import AccountId
from tidemill.domain.location import Location
from tidemill.objects.keyfile import made_once

ROOT_FILE = "root-credentials.json"
ROOT_ACCOUNT = AccountId("root")
_TOKEN_MAX = 512
"""Longer ones are not looked at."""


@dataclass(frozen=True)
class Actor:
    """Who asks. operator: the one who runs the server, and may name paths of its machine."""

    account: AccountId
    user: str
    operator: bool = False


@dataclass(frozen=True)
class Credential:
    """A key and whose it is."""

    secret_id: str
    secret_key: str = field(repr=False)
    actor: Actor = Actor(ROOT_ACCOUNT, "root", operator=True)


def root_credential(folder: Path) -> Credential:
    """The operator's credential of a data folder, made at first use (mode 0600)."""
    made = {"secret_id": "TM" + secrets.token_hex(12), "secret_key": secrets.token_urlsafe(32)}
    found = json.loads(made_once(folder / ROOT_FILE, lambda: json.dumps(made).encode()))
    return Credential(found["secret_id"], found["secret_key"])


class Access:
    """Checks keys."""

    def __init__(self, credentials: Iterable[Credential]) -> None:
        self._known = {known.secret_id: (_digest(known.secret_key), known.actor) for known in credentials}
        self._nobody = _digest(secrets.token_hex())

    def authenticate(self, authorization: str | None) -> Actor:
        """The actor of an `Authorization` header. Raises NotAuthenticated, after the same time whatever is wrong."""
        scheme, _, token = (authorization or "").partition(" ")
        secret_id, _, secret_key = token.strip()[:_TOKEN_MAX].partition(".")
        digest, actor = self._known.get(secret_id, (self._nobody, None))
        good = hmac.compare_digest(digest, _digest(secret_key))
        if scheme.lower() != "bearer" or not good or actor is None:
            raise NotAuthenticated(
                "the credential is missing or wrong." if authorization else "a credential is needed.",
                remedy="Send `Authorization: Bearer <secret_id>.<secret_key>`.",
            )
        return actor


def check_allowed(actor: Actor, location: Location, *, field: str) -> None:
    """Raises NotAllowed for a path of the server's own machine, unless the operator asks.

    Whether a bucket is there is for the region to say.
    """
    if location.is_local and not actor.operator:
        raise NotAllowed(
            f"{str(location)!r} lies on the server's own disk.",
            field=field,
            remedy="Name a bucket (cos://bucket/path/); plain and file: paths are for the operator's key.",
        )


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
