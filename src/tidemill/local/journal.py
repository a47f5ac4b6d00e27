"""The journal of `tidemill run`: one file of JSON lines, written at its end alone and replayed when it is opened.

One line is one exchange, one published unit, or a note of the runner; a line that was torn by a kill counts as never
written. It is not synced line by line: what a loss of power takes from it is computed again.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from tidemill.domain.errors import PartDamaged, StorageFull
from tidemill.domain.splits import PlannedSplit
from tidemill.local.book import Book, Change
from tidemill.ports.journal import CommittedPart, Exchanged, Journal, PublishedUnit, Totals
from tidemill_runtime.contract import Counts, Cursor, Report

VERSION = 1
_SPLITS_PER_LINE = 500


class FileJournal(Journal):
    """Made by `create` or `open_`; threads may share it. header: what `create` was given. notes: all notes together."""

    def __init__(self, path: Path, header: dict[str, Any], book: Book, notes: dict[str, Any], run: str) -> None:
        self.path = path
        self.header = header
        self.notes = notes
        self._book = book
        self._run = run
        self._lock = threading.Lock()
        self._broken: Exception | None = None
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)

    @classmethod
    def create(cls, path: Path, header: Mapping[str, Any], splits: Iterable[PlannedSplit], *, run: str) -> FileJournal:
        """A new journal over planned splits; it is there whole or not at all. header: anything that JSON holds.

        Raises StorageFull.
        """
        planned: list[PlannedSplit] = []
        fresh = path.with_name(path.name + ".new")
        try:
            with fresh.open("wb") as file:
                file.write(_line({"journal": VERSION, "header": dict(header)}))
                source = iter(splits)
                while chunk := list(islice(source, _SPLITS_PER_LINE)):
                    planned += chunk
                    file.write(_line({"splits": [list(vars(split).values()) for split in chunk]}))
            fresh.rename(path)
        except OSError as error:
            fresh.unlink(missing_ok=True)
            raise _storage_error(error, path) from error
        return cls(path, dict(header), Book(planned), {}, run)

    @classmethod
    def open_(cls, path: Path, *, run: str) -> FileJournal | None:
        """The journal in a file, every lease of it reopened; None if there is no such file.

        run: the run that goes on with it. Raises PartDamaged if it cannot be read.
        """
        try:
            with path.open("rb+") as file:
                whole = file.read()
                keep = whole.rfind(b"\n") + 1
                if keep < len(whole):
                    file.truncate(keep)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _storage_error(error, path) from error
        try:
            header, book, notes = _replay(whole[:keep].splitlines())
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise PartDamaged(
                f"the journal {str(path)!r} is damaged: {error}.", remedy="Delete the output folder and start anew."
            ) from error
        return cls(path, header, book, notes, run)

    def exchange(self, report: Report, *, limit: int, now: float, ttl_s: float) -> Exchanged:
        with self._lock:
            exchanged, change = self._book.exchange(report, limit=limit, now=now, ttl_s=ttl_s, run=self._run)
            if change.commits or change.leases:
                self._append(_change_line(change))
            return exchanged

    def release_instance(self, instance: str) -> None:
        with self._lock:
            self._book.release_instance(instance)

    def expire(self, now: float) -> int:
        with self._lock:
            return self._book.expire(now)

    def totals(self) -> Totals:
        with self._lock:
            return self._book.totals()

    def splits(self, unit: int) -> Iterator[PlannedSplit]:
        return iter([self._book.planned[no] for no in self._book.units.get(unit, ())])

    def parts(self, unit: int) -> Iterator[CommittedPart]:
        with self._lock:
            return iter([part for no in self._book.units.get(unit, ()) for part in self._book.parts[no]])

    def all_parts(self) -> Iterator[CommittedPart]:
        """Every committed part, also of splits that are not done, in order of the splits."""
        with self._lock:
            return iter([part for parts in self._book.parts for part in parts])

    def units_ready(self, limit: int) -> list[int]:
        with self._lock:
            return self._book.units_ready(limit)

    def published(self, unit: PublishedUnit) -> None:
        with self._lock:
            if self._book.note_published(unit):
                self._append({"unit": [unit.unit, unit.results, unit.size, _counts_values(unit.counts)]})

    def units_published(self) -> Iterator[PublishedUnit]:
        with self._lock:
            return iter([unit for _, unit in sorted(self._book.published.items())])

    def note(self, **values: Any) -> None:
        """Keeps facts about the run as a whole (the model's digest, how it ended); the last of a name counts."""
        with self._lock:
            self.notes.update(values)
            self._append({"note": values})

    def begin_run(self, run: str, number: int) -> None:
        """From now on commits are those of `run`, the number of which is noted."""
        self._run = run
        self.note(runs=number)

    def close(self) -> None:
        """May be called again."""
        with self._lock:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def _append(self, values: Mapping[str, Any]) -> None:
        if self._broken is not None:
            raise self._broken
        line = _line(values)
        try:
            written = os.write(self._fd, line)
            if written < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            # Memory is ahead of the file now: nothing may be appended any more, and the file alone counts.
            with contextlib.suppress(OSError):
                _cut_torn_line(self.path)
            self._broken = _storage_error(error, self.path)
            raise self._broken from error


def _replay(lines: list[bytes]) -> tuple[dict[str, Any], Book, dict[str, Any]]:
    values = [json.loads(line) for line in lines]
    if not values or not all(isinstance(each, dict) for each in values) or values[0].get("journal") != VERSION:
        raise ValueError("it is not a journal of this version of Tidemill")
    planned = [PlannedSplit(*row) for each in values for row in each.get("splits", ())]
    book = Book(planned)
    notes: dict[str, Any] = {}
    for each in values:
        for row, done in each.get("commits", ()):
            book.replay_commit(_part(row), done)
        for no, fence in each.get("leases", ()):
            book.replay_lease(no, fence)
        if "unit" in each:
            unit, results, size, counts = each["unit"]
            book.note_published(PublishedUnit(unit, results, size, Counts(*counts)))
        notes.update(each.get("note", {}))
    return values[0]["header"], book, notes


def _change_line(change: Change) -> dict[str, Any]:
    return {
        "commits": [[_part_row(part), done] for part, done in change.commits],
        "leases": [[state.no, state.fence] for state in change.leases],
    }


def _part_row(part: CommittedPart) -> list[Any]:
    return [
        part.split,
        [part.begin.object, part.begin.offset],
        [part.end.object, part.end.offset],
        part.name,
        part.data_bytes,
        part.errors_bytes,
        part.index_bytes,
        part.sha256,
        _counts_values(part.counts),
        part.run,
    ]


def _part(row: list[Any]) -> CommittedPart:
    split, begin, end, name, data_bytes, errors_bytes, index_bytes, sha256, counts, run = row
    return CommittedPart(
        split, Cursor(*begin), Cursor(*end), name, data_bytes, errors_bytes, index_bytes, sha256, Counts(*counts), run
    )


def _counts_values(counts: Counts) -> list[int]:
    return [counts.inputs, counts.ok, counts.failed, counts.skipped]


def _line(values: Mapping[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode() + b"\n"


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        file.truncate(file.read().rfind(b"\n") + 1)


def _storage_error(error: OSError, path: Path) -> Exception:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StorageFull(f"no space is left for {str(path)!r}.", remedy="Make room and go on with --resume.")
    return error
