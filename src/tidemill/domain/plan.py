"""What was planned for a run: the listing that its splits refer to, and the totals. Written once by `planning`.

Coordination, publishing and the receipt read it; a resumed run goes on with the plan of the run before it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tidemill.domain.life import Reason
from tidemill.domain.location import Location
from tidemill.domain.splits import Cut, Layout
from tidemill_runtime.contract import Counts


@dataclass(frozen=True)
class Earlier:
    """Finished results that a task counts from (`only_new`): their folder, the task that made them, and the digests of
    its receipt and of the listing of its input. merged: whether its results become part of the new ones.
    """

    folder: Location
    task: str
    receipt_sha256: str
    listing_sha256: str
    merged: bool = False


@dataclass(frozen=True)
class Since:
    """What has come and gone since earlier results, in objects of the input.

    listing, objects, bytes, listing_sha256: the whole input as it is, as lines like those of `Plan.listing`.
    gone: the lines of the earlier listing that have no object any more, gone_sha256 their digest.
    """

    earlier: Earlier
    listing: Location
    objects: int
    bytes: int
    listing_sha256: str
    gone: Location
    gone_sha256: str
    new: int
    changed: int
    unchanged: int
    deleted: int

    @property
    def words(self) -> str:
        """For people: what is new, and what is not."""
        if not self.new and not self.changed:
            told = f"nothing is new since {self.earlier.task}: {_counted(self.unchanged)} unchanged"
        else:
            told = f"since {self.earlier.task}: {_counted(self.new)} new, {self.changed:,} changed, "
            told += f"{self.unchanged:,} unchanged"
        return f"{told}, {self.deleted:,} deleted"

    @property
    def account(self) -> dict[str, Any]:
        """What a receipt says of it."""
        return {
            "task": self.earlier.task,
            "path": str(self.earlier.folder),
            "receipt_sha256": self.earlier.receipt_sha256,
            "output": "merged" if self.earlier.merged else "delta",
            "new": self.new,
            "changed": self.changed,
            "unchanged": self.unchanged,
            "deleted": self.deleted,
            "deleted_sha256": self.gone_sha256,
        }


def _counted(objects: int) -> str:
    return f"{objects:,} object{'' if objects == 1 else 's'}"


NOTE_UNCUT, NOTE_ONLY_NEW = NOTES = ("run.uncut", "run.only_new")
"""Names of the events that tell a plan's note: that objects run whole, and that only what is new is computed."""


@dataclass(frozen=True)
class Plan:
    """listing: JSON lines of {"name", "size", "etag"}, one for each object to compute; splits hold byte ranges of it.

    objects, bytes: of these. units: groups of splits that are published together, numbered from 0.
    listing_sha256: of the listing object, in hex. input_type: `InputFormat.type`.
    note: what a person should know of it, for example that large objects are not cut, and why.
    since: where only what is new is computed; then the input is more than the listing.
    """

    listing: Location
    objects: int
    bytes: int
    splits: int
    units: int
    cut: Cut
    layout: Layout
    listing_sha256: str
    input_type: str
    note: str = ""
    since: Since | None = None

    @property
    def input(self) -> Plan | Since:
        """Which of the two has `listing`, `objects`, `bytes` and `listing_sha256` of the whole input."""
        return self.since or self


def load_plan(values: dict[str, Any]) -> Plan:
    """What `dataclasses.asdict` made of a plan."""
    since = values.get("since")
    if since is not None:
        earlier = Earlier(**{**since["earlier"], "folder": Location(**since["earlier"]["folder"])})
        places = {key: Location(**since[key]) for key in ("listing", "gone")}
        since = Since(**{**since, **places, "earlier": earlier})
    listing = Location(**values["listing"])
    cut, layout = Cut(values["cut"]), Layout(values["layout"])
    return Plan(**{**values, "listing": listing, "cut": cut, "layout": layout, "since": since})


def how_finished(counts: Counts, plan: Plan) -> tuple[Reason, str]:
    """Why a task that has succeeded ended as it did, with what there is to say of it. counts: of its results."""
    told = f"{plan.since.words[0].upper()}{plan.since.words[1:]}." if plan.since else ""
    if not counts.failed:
        return Reason.FINISHED, told
    return Reason.FINISHED_WITH_FAILED_RECORDS, told
