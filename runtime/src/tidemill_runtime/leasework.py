"""One lease from its first record to its last commit; used by the worker.

A slow lease is committed in several parts: after `commit_every_s` what is done is committed, and work goes on while the
lease of the rest is on its way. So a kill costs seconds of work, whatever the size of a split.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Optional

from tidemill_runtime import board as boards
from tidemill_runtime import wire
from tidemill_runtime.batching import BatchSizer
from tidemill_runtime.board import Board, Totals
from tidemill_runtime.encoder import carried, make_encoder
from tidemill_runtime.isolation import Isolator, Outcome, Piece
from tidemill_runtime.reading import open_reader
from tidemill_runtime.sink import PartWriter
from tidemill_runtime.suspicion import Condemned, Failure, Place, Suspect, Suspicion

if TYPE_CHECKING:
    from tidemill_runtime.codec.records import Bad, Records
    from tidemill_runtime.contract import Lease, Manifest, PartTarget
    from tidemill_runtime.worker import Link

Cursor = tuple[int, int]

VERDICT_WITHIN_S = 1.0
"""How long a worker whose model has failed on every record waits to be stopped before it goes on, once in its life."""


class LeaseLost(Exception):
    """The lease is no longer ours, or work is to be laid down; what is not committed is forgotten. answer: for the
    agent.
    """

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(answer)
        self.answer = answer


class Tools(NamedTuple):
    """What a worker keeps from lease to lease."""

    link: Link
    board: Board
    manifest: Manifest
    isolator: Isolator
    sizer: BatchSizer
    seconds: dict[str, float]


class LeaseWork:
    """message: {"lease", "suspects", "condemned", "most"} as the agent sends it."""

    def __init__(self, tools: Tools, message: dict[str, Any]) -> None:
        self._tools = tools
        self._lease: Lease = wire.read_lease(message["lease"])
        self._suspicion = Suspicion(
            [Suspect(*each) for each in message.get("suspects", ())],
            [Condemned(*each) for each in message.get("condemned", ())],
        )
        tools.sizer.permit(message.get("most"))
        self._ticket: int = message["ticket"]
        self._fence = self._lease.fence
        self._target: Optional[PartTarget] = self._lease.part
        self._beside = self._folder(self._lease.part)
        self._reader = open_reader(
            self._lease,
            tools.manifest.input,
            tools.manifest.scratch,
            self._suspicion.forced(),
            tools.isolator.shape,
            carried(tools.manifest.result),
            tools.isolator.record,
        )
        self._encoder = make_encoder(tools.manifest.result, self._lease.objects)
        self._begin: Cursor = (self._lease.cursor.object, self._lease.cursor.offset)
        self._part = self._new_part()
        self._clock = time.monotonic()
        self._flushing = False
        self._paused = False

    def run(self) -> None:
        """Raises LeaseLost, FatalError."""
        try:
            self._tools.board.enter(boards.READING)
            for records in self._reader.blocks():
                self._spent("read")
                self._block(records)
                self._tools.board.enter(boards.READING)
            self._finish()
            if self._flushing:
                raise LeaseLost({"type": "flushed"})
        finally:
            self._part.discard()
            self._reader.close()

    def _finish(self) -> None:
        while self._target is None and not self._flushing:
            self._listen(wait=True)
        if self._target is None:
            raise LeaseLost({"type": "flushed"})
        self._reader.check()
        self._commit((len(self._lease.objects), 0), done=True)

    def _block(self, records: Records) -> None:
        first = row = 0
        self._place = Place(records.object, records.begin, records.end, 0)
        while row < records.rows:
            if first < records.size and self._suspicion.starts(self._place, first):
                self._checkpoint(records, row, first)
            outcome, stop = self._predict(records, first)
            row_stop = records.rows if stop == records.size else _row(records, stop)
            self._spent("predict")
            self._tools.board.enter(boards.WRITING)
            self._write(records, first, row, row_stop, outcome)
            first, row = stop, row_stop
            self._spent("write")
            self._account()
            self._listen(wait=False)
            if self._paused:
                self._rest()
            if self._tools.isolator.lost_hope():
                self._ask(records, row, first)
            if self._flushing or time.monotonic() - self._begun >= self._tools.manifest.commit_every_s:
                self._checkpoint(records, row, first)
            if self._flushing:
                raise LeaseLost({"type": "flushed"})

    def _predict(self, records: Records, first: int) -> tuple[Outcome, int]:
        if first == records.size:
            return Outcome([], {}), first
        verdict = self._suspicion.verdict(self._place, first)
        if verdict is not None:
            return Outcome([], {first: verdict}), first + 1
        if self._suspicion.knows(self._place):  # what killed a worker is looked for in the order of the records
            stop = self._suspicion.stop(self._place, first, min(records.size, first + self._tools.sizer.size))
        else:
            stop = min(records.size, first + self._tools.isolator.reach(self._tools.manifest.commit_every_s / 2))
        return self._tools.isolator.run(records, self._place, first, stop), stop

    def _write(self, records: Records, first: int, row: int, row_stop: int, outcome: Outcome) -> None:
        """Adds the rows [row, row_stop), whose items from `first` on the outcome is of, to the part."""
        part = self._part
        start = part.position(records.object) - row
        data: list[bytes] = []
        ok = failed = 0
        pieces = iter(outcome.pieces)
        piece = next(pieces, None)
        each, item = row, first
        while each < row_stop:
            if piece is not None and item == piece.stop:
                piece = next(pieces, None)
            if piece is not None and item >= piece.first and _row(records, item) == each:
                stop = _unbroken(records, item, piece.stop)
                broken = self._encode(records, piece, item, stop, data)
                ok += stop - item - len(broken)
                failures = [(each + number - item, failure) for number, failure in broken.items()]
                each, item = each + stop - item, stop
            else:
                failures = []
                failure = outcome.failed.get(item)
                if failure is not None and _row(records, item) == each:
                    data.append(self._encoder.failed(records, item))
                    item += 1
                    failures.append((each, failure))
                elif each in records.bad:
                    data.append(self._encoder.failed(records, None))
                    failures.append((each, _unread(records.bad[each])))
                each += 1
            failed += len(failures)
            for number, failure in failures:
                place = (records.object + number, 0) if records.of_files else (records.object, start + number)
                part.error(*place, failure, _raw(records, number))
        skipped = row_stop - row - ok - failed
        part.add(records.object, b"".join(data), ok=ok, failed=failed, skipped=skipped)

    def _encode(self, records: Records, piece: Piece, first: int, stop: int, data: list[bytes]) -> dict[int, Failure]:
        """Adds the items [first, stop) to the data; those that cannot be written are found by halving."""
        try:
            data.append(self._encoder.rows(records, piece, first, stop))
            return {}
        except Exception as error:
            if stop - first == 1:
                data.append(self._encoder.failed(records, first))
                return {first: Failure("encode_error", type(error).__name__, str(error), "", 1)}
        middle = (first + stop) // 2
        broken = self._encode(records, piece, first, middle, data)
        broken.update(self._encode(records, piece, middle, stop, data))
        return broken

    def _checkpoint(self, records: Records, row: int, item: int) -> None:
        """Commits what is done before this row, if there is anything and the lease for it is here."""
        if self._target is None or self._part.empty:
            return
        self._reader.check()
        at = records.cursor(row)
        new = Place(at[0], at[1], records.end, item)
        self._commit(at, done=False, move=(self._place, new))
        self._suspicion.move(self._place, new)
        self._place = new

    def _ask(self, records: Records, row: int, item: int) -> None:
        """Commits what is done before this row, and waits for what the coordinator makes of it."""
        while self._target is None and not self._flushing:
            self._listen(wait=True)
        self._checkpoint(records, row, item)
        give_up_at = time.monotonic() + VERDICT_WITHIN_S
        while not self._flushing and (left_s := give_up_at - time.monotonic()) > 0:
            self._listen(wait=True, within_s=left_s)
        self._clock = time.monotonic()

    def _commit(self, end: Cursor, done: bool, move: Optional[tuple[Place, Place]] = None) -> None:
        assert self._target is not None
        index = len(self._lease.objects) > 1 and self._tools.manifest.input.type != "file"
        self._part.seconds = round(time.monotonic() - self._begun, 6)
        facts = self._part.finish(self._target, with_index=index)
        commit = {
            "split": self._lease.split,
            "fence": self._fence,
            "begin": {"object": self._begin[0], "offset": self._begin[1]},
            "end": {"object": end[0], "offset": end[1]},
            "done": done,
            **facts,
        }
        self._begin, self._target = end, None
        self._part = self._new_part()
        self._account()
        self._tools.link.tell({"type": "commit", "ticket": self._ticket, "commit": commit, "move": move})

    def _new_part(self) -> PartWriter:
        self._begun = time.monotonic()
        return PartWriter(self._beside)

    def _folder(self, target: PartTarget) -> str:
        return os.path.dirname(target.put.location) if target.put.kind == "path" else self._tools.manifest.scratch

    def _listen(self, wait: bool, within_s: Optional[float] = None) -> None:
        """Hears the agent. Raises LeaseLost."""
        for message in self._tools.link.heard(wait, within_s):
            kind = message["type"]
            if kind == "lease":  # the rest of this split, under a new fence
                rest = wire.read_lease(message["lease"])
                self._fence, self._target = rest.fence, rest.part
                for known, renewed in zip(self._lease.objects, rest.objects):
                    vars(known)["get"] = renewed.get  # a URL that was signed later, for what is still to be read
            elif kind == "drop":
                if message["ticket"] == self._ticket:
                    raise LeaseLost({"type": "dropped", "ticket": self._ticket})
            elif kind == "flush":
                self._flushing = True
            elif kind in ("pause", "resume"):
                self._paused = kind == "pause"

    def _rest(self) -> None:
        """Waits while something else is measured."""
        self._tools.board.enter(boards.IDLE)
        while self._paused and not self._flushing:
            self._listen(wait=True)
        self._clock = time.monotonic()

    def _spent(self, on: str) -> None:
        """Books the time since the last call."""
        now = time.monotonic()
        self._tools.seconds[on] += now - self._clock
        self._clock = now

    def _account(self) -> None:
        total, seconds = self._part.total, self._tools.seconds
        self._tools.board.account(
            Totals(
                total.inputs,
                total.ok,
                total.failed,
                total.skipped,
                self._tools.sizer.size,
                seconds["predict"],
                seconds["read"],
                seconds["write"],
                self._tools.sizer.records,
            )
        )


def _row(records: Records, item: int) -> int:
    return item if records.item_rows is None else records.item_rows[item]


def _unbroken(records: Records, item: int, stop: int) -> int:
    """The end of the items from `item` on, up to `stop`, whose rows follow one another without a gap."""
    rows = records.item_rows
    if rows is None or rows[stop - 1] - rows[item] == stop - 1 - item:
        return stop
    end = item + 1
    while end < stop and rows[end] == rows[end - 1] + 1:
        end += 1
    return end


def _unread(bad: Bad) -> Failure:
    return Failure(bad.fault, bad.type, bad.message, "", 0)


def _raw(records: Records, row: int) -> bytes:
    """A failed row as it was read."""
    bad = records.bad.get(row)
    return records.raw(row) if bad is None or bad.raw is None else bad.raw
