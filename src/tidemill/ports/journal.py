"""Where a plan's splits, leases and commits are kept: the store on a server, one file on a laptop.

A journal belongs to one run over one plan (a resumed run opens the plan of the run before it). Both kinds decide by
`domain.splits`, and both pass the same conformance suite.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from tidemill.domain.splits import PlannedSplit, SplitState
from tidemill_runtime.contract import Counts, Cursor, Held, Report


@dataclass(frozen=True)
class CommittedPart:
    """One part that counts. begin, end: what it covers of its split. run: the run that computed it."""

    split: int
    begin: Cursor
    end: Cursor
    name: str
    data_bytes: int
    errors_bytes: int
    index_bytes: int
    sha256: str
    counts: Counts
    run: str


@dataclass(frozen=True)
class Granted:
    """A lease that was just written down."""

    split: PlannedSplit
    state: SplitState


@dataclass(frozen=True)
class Exchanged:
    """What one exchange did. open: splits nobody holds; leased: splits that anybody holds; failing: see `Totals`."""

    granted: list[Granted]
    refused: list[Held]
    open: int
    leased: int


@dataclass(frozen=True)
class Totals:
    """Progress of the plan. bytes are of the input; counts are of committed work, over all runs of the plan."""

    splits: int
    splits_done: int
    bytes: int
    bytes_done: int
    counts: Counts
    units: int
    units_published: int


@dataclass(frozen=True)
class PublishedUnit:
    """A unit whose results are all in place. results: how many objects; size in bytes."""

    unit: int
    results: int
    size: int
    counts: Counts


class Journal(Protocol):
    def exchange(self, report: Report, *, limit: int, now: float, ttl_s: float) -> Exchanged:
        """Applies a report's commits, renews what it holds, and leases up to `limit` splits, all or nothing.

        The rest of a split that was committed in part is leased back to the same instance first (beyond the limit).
        A lease that this instance was given and neither holds nor commits was lost with an answer: it is given again,
        under its old fence. Safe to repeat with the same report.
        """

    def release_instance(self, instance: str) -> None:
        """Reopens the splits of an instance that is gone."""

    def expire(self, now: float) -> int:
        """Reopens splits whose lease has expired; how many."""

    def totals(self) -> Totals: ...

    def splits(self, unit: int) -> Iterator[PlannedSplit]:
        """The splits of one unit, in order."""

    def parts(self, unit: int) -> Iterator[CommittedPart]:
        """The committed parts of one unit, in order of the input."""

    def units_ready(self, limit: int) -> list[int]:
        """Units whose splits are all done and that are not published yet, lowest first."""

    def published(self, unit: PublishedUnit) -> None:
        """Notes that a unit's results are in place. Repeating it is no error."""

    def units_published(self) -> Iterator[PublishedUnit]:
        """In order of the units."""
