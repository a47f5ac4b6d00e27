"""The leases that an instance holds, and which worker has which. Used by the agent; pure bookkeeping."""

from __future__ import annotations

import itertools
from collections import deque
from typing import Any, Optional

from tidemill_runtime.board import Window
from tidemill_runtime.suspicion import Condemned, Place, Suspect, moved, narrow


class HeldLease:
    """One lease. values: as the coordinator gave it. ticket: new with each hand-over to a worker, which repeats it in
    its answers.

    awaiting: a commit of part of it is on its way, and the lease of the rest has not come yet.
    """

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values
        self.ticket = 0
        self.awaiting = False
        self.suspects: list[Suspect] = []
        self.condemned: list[Condemned] = []
        self.deaths = 0

    @property
    def split(self) -> int:
        return int(self.values["split"])

    @property
    def fence(self) -> int:
        return int(self.values["fence"])

    def message(self, most: Optional[int]) -> dict[str, Any]:
        """What a worker is told."""
        return {
            "type": "lease",
            "ticket": self.ticket,
            "lease": self.values,
            "suspects": self.suspects,
            "condemned": self.condemned,
            "most": most,
        }

    def suspect(self, window: Window, fault: str) -> Suspect:
        """A worker died in these records."""
        self.suspects = narrow(self.suspects, window, fault)
        return self.suspects[-1]

    def move(self, old: Place, new: Place) -> None:
        """A commit up to the new place was made."""
        self.suspects = moved(self.suspects, old, new)
        self.condemned = moved(self.condemned, old, new)

    def condemn(self, suspect: Suspect, message: str) -> None:
        """This one record is it."""
        self.suspects.remove(suspect)
        self.condemned.append(
            Condemned(
                suspect.object, suspect.begin, suspect.end, suspect.first, 1, suspect.fault, message, suspect.deaths
            )
        )


class LeaseBook:
    """By split. Those in `queue` wait for a worker."""

    def __init__(self) -> None:
        self._held: dict[int, HeldLease] = {}
        self._queue: deque[HeldLease] = deque()
        self._tickets = itertools.count(1)

    def __len__(self) -> int:
        return len(self._held)

    def take(self, values: dict[str, Any]) -> None:
        """A lease of a split that no worker has."""
        lease = HeldLease(values)
        self.forget(lease.split)
        self._held[lease.split] = lease
        self._queue.append(lease)

    @property
    def queued(self) -> int:
        """How many wait for a worker."""
        return len(self._queue)

    def get(self, split: Optional[int]) -> Optional[HeldLease]:
        return self._held.get(split) if split is not None else None

    def next(self) -> Optional[HeldLease]:
        """The lease that waits longest, with a new ticket."""
        if not self._queue:
            return None
        lease = self._queue.popleft()
        lease.ticket = next(self._tickets)
        return lease

    def put_back(self, lease: HeldLease) -> None:
        """Its worker is gone: it is the next to be handed over."""
        lease.ticket = 0
        if not lease.awaiting:
            self._queue.appendleft(lease)

    def committed(self, commit: dict[str, Any], move: Optional[list[list[int]]]) -> None:
        """A worker committed something. move: from which place to which, in the middle of a split."""
        lease = self._held.get(commit["split"])
        if lease is None or lease.fence != commit["fence"]:
            return
        if commit["done"]:
            del self._held[commit["split"]]
        else:
            lease.awaiting = True
            if move is not None:
                lease.move(Place(*move[0]), Place(*move[1]))

    def go_on(self, values: dict[str, Any]) -> Optional[HeldLease]:
        """The rest of a split has come: the lease, if a worker is still at it; otherwise it waits for one."""
        lease = self._held[values["split"]]
        lease.values = values
        lease.awaiting = False
        if lease.ticket:
            return lease
        self._queue.append(lease)
        return None

    def forget(self, split: int) -> Optional[HeldLease]:
        lease = self._held.pop(split, None)
        if lease is not None and lease in self._queue:
            self._queue.remove(lease)
        return lease

    def renewals(self) -> list[dict[str, Any]]:
        """What to name in a report so that it stays ours."""
        return [{"split": each.split, "fence": each.fence} for each in self._held.values() if not each.awaiting]
