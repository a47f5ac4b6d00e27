"""Comparing two sides: by the records' place in the input, or by a key that they carry. In flat memory.

Used by `tidemill.comparing.diff`, which finds the sides.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import IO, Any

import msgspec

from tidemill.comparing.report import Report
from tidemill.comparing.sides import Block, Side
from tidemill.domain.errors import InvalidValue

PREDICTION = "prediction"
_NULLS = (b"null", b'"prediction":null}')
"""How the line of a failed record ends, in each form."""
_PARTITIONS = 64
"""Records whose order differs are shared out to so many files by their key, and joined file by file: 10^7 records of
200 bytes make files of 30 MB."""
_MANY = 512
"""From so many on it pays to compare numbers in columns."""
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

Progress = Callable[[int], None]


def by_place(before: Side, after: Side, report: Report, progress: Progress) -> None:
    """The first record with the first, the second with the second."""
    for old, new in _in_step(before.blocks(), after.blocks()):
        if old is None or new is None:
            left = old if old is not None else new
            assert left is not None
            report.only_before += len(left) if new is None else 0
            report.only_after += len(left) if old is None else 0
            continue
        _compare(old, new, report)
        progress(report.compared)


def by_key(before: Side, after: Side, report: Report, keys: Sequence[str], progress: Progress) -> None:
    """Records that have the same values of these keys; where both sides are in the same order, as it mostly is, at
    once.
    """
    pairs = _in_step(before.blocks(), after.blocks())
    with ExitStack() as stack:
        join: _Join | None = None
        for old, new in pairs:
            if join is None and old is not None and new is not None:
                ours, theirs = _keys_of(old, keys), _keys_of(new, keys)
                if ours == theirs and len(set(ours)) == len(ours):
                    _compare(old, new, report, ours)
                    progress(report.compared)
                    continue
            if join is None:
                join = _Join(stack)
            for side, block in enumerate((old, new)):
                if block is not None:
                    join.add(side, block, _keys_of(block, keys))
        if join is not None:
            join.compare(report, progress)


def _in_step(before: Iterator[Block], after: Iterator[Block]) -> Iterator[tuple[Block | None, Block | None]]:
    """Blocks of the same length from both; at the end what only one of them has."""
    old, new = next(before, None), next(after, None)
    while old is not None and new is not None:
        both = min(len(old), len(new))
        yield old.cut(0, both), new.cut(0, both)
        old = old.cut(both, len(old)) if both < len(old) else next(before, None)
        new = new.cut(both, len(new)) if both < len(new) else next(after, None)
    while old is not None:
        yield old, None
        old = next(before, None)
    while new is not None:
        yield None, new
        new = next(after, None)


def _compare(old: Block, new: Block, report: Report, keys: Sequence[Any] = ()) -> None:
    """Blocks of the same length, record by record."""
    differing: Sequence[int] = range(len(old))
    if old.lines is not None and new.lines is not None:
        differing = [at for at, (one, two) in enumerate(zip(old.lines, new.lines, strict=True)) if one != two]
        same = len(old) - len(differing)
        failed = sum(line.endswith(_NULLS) for line in old.lines)
        failed -= sum(old.lines[at].endswith(_NULLS) for at in differing)
        report.records_same(same, failed)
        if not differing:
            return
        old_values, new_values = (
            Block(block.name, block.first, [block.lines[at] for at in differing], []).values()
            for block in (old, new)
            if block.lines is not None
        )
    else:
        old_values, new_values = old.values(), new.values()
    before, after = predictions_of(old_values), predictions_of(new_values)
    if len(before) >= _MANY and set(map(type, before)) | set(map(type, after)) == {float}:
        report.numbers(old, differing, keys, before, after)
        return
    for at, one, two in zip(differing, before, after, strict=True):
        report.record(old, at, keys[at] if keys else None, one, two)


def predictions_of(records: list[Any]) -> list[Any]:
    """`prediction_of` each, quickly where all are of the usual form."""
    try:
        return [record[PREDICTION] for record in records]
    except (KeyError, TypeError, IndexError):
        return [prediction_of(record) for record in records]


def prediction_of(record: Any) -> Any:
    """The prediction in a record of a result, None if it failed. Rows of CSV and Parquet without a column of that name
    are predictions themselves.
    """
    if not isinstance(record, dict):
        return record
    if PREDICTION in record:
        return record[PREDICTION]
    return None if record and all(value is None for value in record.values()) else record


def _keys_of(block: Block, keys: Sequence[str]) -> list[Any]:
    """The key of each record: a value, or a list of several."""
    found = []
    for at, record in enumerate(block.values()):
        try:
            found.append(record[keys[0]] if len(keys) == 1 else tuple(record[key] for key in keys))
        except (KeyError, TypeError):
            missing = next((key for key in keys if not isinstance(record, dict) or key not in record), keys[0])
            raise InvalidValue(
                f"{block.place(at)} has no key {missing!r}.",
                field="--on",
                remedy="Carry it into the results with format.result.keys, or compare by place.",
            ) from None
    return found


class _Join:
    """Records of both sides in files by their keys' digests."""

    def __init__(self, stack: ExitStack) -> None:
        self._files = [
            [stack.enter_context(tempfile.TemporaryFile()) for _ in range(_PARTITIONS)]  # noqa: SIM115 - it is one
            for _side in range(2)
        ]

    def add(self, side: int, block: Block, keys: list[Any]) -> None:
        lines: list[list[bytes]] = [[] for _ in range(_PARTITIONS)]
        for at, (key, record) in enumerate(zip(keys, block.values(), strict=True)):
            text = _encode(key)
            number = hashlib.blake2b(text, digest_size=4).digest()[0] % _PARTITIONS
            lines[number].append(_encode([key, block.name, block.first + at, prediction_of(record)]) + b"\n")
        for file, own in zip(self._files[side], lines, strict=True):
            file.write(b"".join(own))

    def compare(self, report: Report, progress: Progress) -> None:
        for before, after in zip(*self._files, strict=True):
            held = {}
            for key, name, line, value in _rows(before):
                if key in held:
                    report.repeated += 1
                else:
                    held[key] = (name, line, value)
            seen = set()
            for key, _name, _line, value in _rows(after):
                if key in seen:
                    report.repeated += 1
                elif key not in held:
                    report.only_after += 1
                else:
                    name, line, old = held[key]
                    report.record(Block(name, line, None, []), 0, key, old, value)
                seen.add(key)
            report.only_before += len(held.keys() - seen)
            progress(report.compared)


def _rows(file: IO[bytes]) -> Iterator[tuple[Any, str, int, Any]]:
    file.seek(0)
    for row in file:
        key, name, line, value = _decode(row)
        yield tuple(key) if isinstance(key, list) else key, name, line, value
