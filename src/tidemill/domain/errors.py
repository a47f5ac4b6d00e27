"""Every error that Tidemill raises on purpose. Each class owns its code and its HTTP status.

TidemillError
├── Refused                      the request is wrong: nothing was started, charged or written (exit status 2)
│   ├── InvalidValue             a field has a value that cannot be (names field, value, remedy)
│   │   └── UnknownKey           a key that does not exist (suggests the nearest)
│   ├── NotFound                 no such task, model, object …
│   ├── Conflict                 it exists already, is in use, or is in a state that does not allow this
│   ├── OutputTaken              the output folder belongs to another task or holds other results
│   ├── NotAuthenticated         no credential, or a wrong one
│   ├── NotAllowed               a good credential, but not for this
│   ├── TooLarge                 larger than a limit that is named
│   └── LimitExceeded            too many, too fast
├── Temporary                    may go away by itself: try again
│   ├── StorageUnavailable       object storage does not answer, or answers 5xx
│   ├── StorageFull              no space left
│   ├── StoreUnavailable         the database does not answer or is busy
│   └── ServerUnreachable        the Tidemill server does not answer (raised by the client)
└── Permanent                    will not go away by itself
    ├── StorageDenied            object storage refuses the credential
    ├── InputChanged             an input object is not the one that was listed
    ├── PartDamaged              a committed part is missing or not what was committed
    ├── EngineFailed             the engine cannot place or see instances
    ├── EnvironmentFailed        a package's requirements cannot be installed
    └── IllegalTransition        a status change that the transition table forbids (a bug)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TidemillError(Exception):
    """Base of all. `code` is stable and machine-readable; `status` is the HTTP status of the JSON API."""

    code = "internal"
    status = 500

    def __init__(self, message: str, *, field: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.field}: {self.message}" if self.field else self.message
        return f"{text} {self.remedy}" if self.remedy else text


class Refused(TidemillError):
    code = "refused"
    status = 400


class InvalidValue(Refused, ValueError):  # a ValueError too, so that pydantic's validators may raise it
    code = "invalid_value"
    status = 422


class UnknownKey(InvalidValue):
    code = "unknown_key"

    @classmethod
    def among(cls, key: str, known: Iterable[str], *, where: str = "") -> UnknownKey:
        """The error for `key`, with the nearest of `known` suggested."""
        names = sorted(known)
        near = difflib.get_close_matches(key, names, n=1, cutoff=0.6)
        remedy = f"Did you mean {near[0]!r}?" if near else f"Known keys: {', '.join(names)}."
        return cls(f"unknown key {key!r}.", field=f"{where}.{key}" if where else key, remedy=remedy)


class NotFound(Refused):
    code = "not_found"
    status = 404


class Conflict(Refused):
    code = "conflict"
    status = 409


class OutputTaken(Conflict):
    code = "output_taken"


class NotAuthenticated(Refused):
    code = "not_authenticated"
    status = 401


class NotAllowed(Refused):
    code = "not_allowed"
    status = 403


class TooLarge(Refused):
    code = "too_large"
    status = 413


class LimitExceeded(Refused):
    code = "limit_exceeded"
    status = 429


class Temporary(TidemillError):
    code = "temporary"
    status = 503


class StorageUnavailable(Temporary):
    code = "storage_unavailable"


class StorageFull(Temporary):
    code = "storage_full"


class StoreUnavailable(Temporary):
    code = "store_unavailable"


class ServerUnreachable(Temporary):
    code = "server_unreachable"


class Permanent(TidemillError):
    code = "permanent"


class StorageDenied(Permanent):
    code = "storage_denied"
    status = 400


class InputChanged(Permanent):
    code = "input_changed"


class PartDamaged(Permanent):
    code = "part_damaged"


class EngineFailed(Permanent):
    code = "engine_failed"


class EnvironmentFailed(Permanent):
    """The message is what the resolver said; `log` has all of it, on the machine that tried."""

    code = "environment_failed"

    def __init__(self, message: str, *, log: str = "") -> None:
        super().__init__(message)
        self.log = log


class IllegalTransition(Permanent):
    code = "illegal_transition"
