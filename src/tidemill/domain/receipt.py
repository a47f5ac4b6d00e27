"""The account of a run: what went in, what came out, by which model, when and for whom. Pure.

Made by the server's publish loop and by `tidemill run`, filled in and written by `publishing`. The results themselves
are listed, one a line with digest and account, in the `_SUCCESS` marker; the receipt holds the digest of that list.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

from tidemill.domain.errors import InvalidValue
from tidemill_runtime.contract import Counts

RECEIPT_VERSION = 1


@dataclass(frozen=True)
class InputAccount:
    """listing_sha256: of the input as it was planned, one object a line: name, size, etag. bytes are of all objects."""

    path: str
    objects: int
    bytes: int
    listing_sha256: str


@dataclass(frozen=True)
class ResultsAccount:
    """manifest_sha256: of the lines of `_SUCCESS` after its first; errors_sha256: of errors.jsonl."""

    path: str
    objects: int
    bytes: int
    manifest_sha256: str
    errors_sha256: str


@dataclass(frozen=True)
class Receipt:
    """Digests are sha256 in hex, None where there is no such thing. Times are seconds since the epoch, phases seconds.

    status: of the task (SUCCEED). actor: who asked for it. phases_s: queue, environment, start, load, predict, publish.
    retries: how many instances were replaced. runs: all runs of the task whose work is in the results, in order.
    environment: versions of what computed it, with its digest where it was made for the model. packages: what was
    installed in it, otherwise those of the model's requirements. counts, results: filled in by the publisher.
    made_with: formats, function and command, for a later task that adds to these results. since: where only what was
    new was computed, the results that it counts from, and how many objects are new, changed, unchanged and deleted.
    spec: the task as it was asked for, without the values of its variables. signature: of the receipt without it.
    """

    task: str
    run: str
    name: str
    status: str
    actor: str
    region: str
    input: InputAccount
    created: float
    finished: float
    phases_s: dict[str, float] = field(default_factory=dict)
    instances: int = 1
    retries: int = 0
    runs: tuple[str, ...] = ()
    model: str | None = None
    model_sha256: str | None = None
    code_sha256: str | None = None
    image: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    packages: dict[str, str] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    made_with: dict[str, Any] = field(default_factory=dict)
    since: dict[str, Any] | None = None
    counts: Counts = Counts()
    results: ResultsAccount | None = None
    signature: dict[str, str] | None = None

    def __post_init__(self) -> None:
        check_counts(self.counts)

    def to_json(self) -> bytes:
        """Canonical: the same receipt is the same bytes. Keys sorted, no spaces, times in milliseconds' precision."""
        values: dict[str, Any] = {"version": RECEIPT_VERSION, **asdict(self)}
        values["phases_s"] = {phase: round(seconds, 3) for phase, seconds in self.phases_s.items()}
        values["created"], values["finished"] = round(self.created, 3), round(self.finished, 3)
        return canonical(values)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.to_json()).hexdigest()


def check_counts(counts: Counts) -> None:
    """Raises InvalidValue unless every record is accounted for."""
    if counts.inputs != counts.ok + counts.failed + counts.skipped:
        raise InvalidValue(
            f"{counts.inputs} inputs are not {counts.ok} ok, {counts.failed} failed and {counts.skipped} skipped.",
            field="counts",
        )


def canonical(values: dict[str, Any]) -> bytes:
    """One line of JSON with its newline; the same values are the same bytes."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace") + b"\n"  # a lone surrogate becomes its JSON escape
