"""Answers an instance's reports: commits are judged, leases renewed and granted, and told what to do next.

One coordinator serves one run. The server's runner door and `tidemill run` call `answer`; what they share is all here,
what differs is the journal. It keeps nothing that a restart could lose.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache

from tidemill.domain.errors import Conflict
from tidemill.domain.location import Location
from tidemill.domain.plan import Plan
from tidemill.domain.splits import ListedObject
from tidemill.objects.listing import read_listing
from tidemill.ports.clock import Clock
from tidemill.ports.journal import Exchanged, Granted, Journal
from tidemill.ports.objects import Objects
from tidemill_runtime.contract import CONTRACT_VERSION, InputObject, Lease, Orders, PartTarget, Report

_CACHED_LISTINGS = 64
"""Ranges of the listing kept in memory, of at most 250 objects each: a large object's splits share one."""


class Wish(StrEnum):
    """What the caller wants of the run's instances."""

    WORK = "work"
    FLUSH = "flush"  # commit what is computed, then end
    STOP = "stop"  # end at once


@dataclass(frozen=True)
class CoordinatorSettings:
    """Times of leases.

    lease_ttl_s: after this long without a report a lease may be taken over. grant_ttl_s: how long an instance's access
    to one object is good. report_every_s: the longest time between two reports.
    """

    lease_ttl_s: float = 30.0
    grant_ttl_s: float = 6 * 3600.0
    report_every_s: float = 2.0


class Coordinator:
    """One for each run.

    input: the folder that the listing's names lie below. parts: the folder for staged parts. instances: how many the
    run has, so that each gets its share of the last splits.
    """

    def __init__(
        self,
        journal: Journal,
        objects: Objects,
        plan: Plan,
        *,
        input: Location,  # noqa: A002 - the word of the task file
        parts: Location,
        clock: Clock,
        settings: CoordinatorSettings,
        instances: int = 1,
    ) -> None:
        self._journal = journal
        self._objects = objects
        self._input = input
        self._parts = parts
        self._clock = clock
        self._settings = settings
        self._instances = instances
        self._open: int | None = None
        self._listed: Callable[[int, int, int], tuple[ListedObject, ...]] = lru_cache(_CACHED_LISTINGS)(
            lambda start, stop, first: tuple(read_listing(objects, plan.listing, start, stop, first_ordinal=first))
        )

    def answer(self, report: Report, wish: Wish = Wish.WORK) -> Orders:
        """The orders for a report. May be called again with the same report, and from several threads.

        Raises Conflict for a contract version that is not understood, and whatever the journal and the storage raise.
        """
        if report.version not in (CONTRACT_VERSION, CONTRACT_VERSION - 1):
            raise Conflict(
                f"the instance speaks version {report.version} of the contract, this coordinator {CONTRACT_VERSION}.",
                remedy="Use the runtime that came with this server, or the one before it.",
            )
        ending = wish is not Wish.WORK or report.fault is not None or report.state == "stopping"
        exchanged = self._journal.exchange(
            report,
            limit=0 if ending else self._limit(report.want),
            now=self._clock.now(),
            ttl_s=self._settings.lease_ttl_s,
        )
        self._open = exchanged.open
        directive = self._directive(report, wish, exchanged)
        # An instance that ends gets nothing new, not even the rest of what it committed: it is reopened later.
        granted = exchanged.granted if directive in ("work", "wait") else []
        return Orders(
            directive=directive,
            leases=[self._lease(each) for each in granted],
            refused=exchanged.refused,
            report_every_s=self._settings.report_every_s,
        )

    def _limit(self, want: int) -> int:
        """At the tail nobody may hoard: an instance gets at most half of its share of what is left."""
        if self._open is None:
            totals = self._journal.totals()
            self._open = totals.splits - totals.splits_done
        return min(want, max(1, self._open // (2 * self._instances)))

    def _directive(self, report: Report, wish: Wish, exchanged: Exchanged) -> str:
        if wish is Wish.STOP or report.fault is not None:
            return "stop"
        if wish is Wish.FLUSH:
            # "stopping" is how an instance says that it has heard. When nothing computed is left to commit, all that it
            # could still give is the mini-batch in hand, and nobody wants to wait for that.
            flushed = report.state == "stopping" and not report.pending.inputs and not report.commits
            return "stop" if flushed else "flush"
        if exchanged.open == 0 and exchanged.leased == 0:
            return "finish"
        idle = not report.held and not exchanged.granted
        return "wait" if idle and exchanged.open == 0 else "work"

    def _lease(self, granted: Granted) -> Lease:
        split, state = granted.split, granted.state
        ttl_s = self._settings.grant_ttl_s
        part = state.part
        assert part is not None, "a journal grants leases with a part's name"
        objects = [
            InputObject(
                ordinal=listed.ordinal,
                name=listed.name,
                size=listed.size,
                etag=listed.etag,
                get=self._objects.grant_read(self._input.child(listed.name), ttl_s),
            )
            for listed in self._listed(split.listing_start, split.listing_stop, split.first_object)
        ]
        return Lease(
            split=split.no,
            fence=state.fence,
            objects=objects,
            start=split.start,
            stop=split.stop,
            cursor=state.cursor,
            part=PartTarget(part, self._objects.grant_write(self._parts.child(part), ttl_s)),
        )
