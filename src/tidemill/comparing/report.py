"""What a comparison found: counts, how far numbers are apart, which labels became which, examples. See `compare`."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tidemill.comparing.sketch import Distribution

QUANTILES = (0.5, 0.9, 0.99)
_LABELS_MAX = 400
"""Pairs of labels that are counted apart; what has more is no label but text."""
_ABSENT = object()


@dataclass(frozen=True)
class Example:
    """One record that differs. place: in the first of the two, in words; key: its key, where records were joined by
    one.
    """

    place: str
    key: Any
    before: Any
    after: Any

    def to_json(self) -> dict[str, Any]:
        found = {"place": self.place, "before": self.before, "after": self.after}
        return {**found, "key": self.key} if self.key is not None else found


@dataclass
class Field:
    """What changed in one place of the predictions. labels: (before, after) → how often; None where they are too many.
    others: how often the kind of value changed (a number became text, a list longer).
    """

    numbers: Distribution = field(default_factory=Distribution)
    labels: Counter[tuple[str, str]] | None = field(default_factory=Counter)
    others: int = 0

    def label(self, before: str, after: str) -> None:
        if self.labels is not None:
            self.labels[before, after] += 1
            if len(self.labels) > _LABELS_MAX:
                self.labels = None


class Placed(Protocol):
    def place(self, index: int) -> str:
        """Where a record is, in words."""


@dataclass
class Report:
    """The two sides are called before and after. compared: records that both have. same: of these, within the
    tolerance. failed_…: records without a prediction on one side, or on both. only_…: records that the other side does
    not have. repeated: keys that are there more than once (the first counts). fields: by path in the prediction (""
    is the prediction itself).
    """

    before: str
    after: str
    tolerance: float
    examples_max: int
    compared: int = 0
    same: int = 0
    failed_before: int = 0
    failed_after: int = 0
    failed_both: int = 0
    only_before: int = 0
    only_after: int = 0
    repeated: int = 0
    fields: dict[str, Field] = field(default_factory=dict)
    examples: list[Example] = field(default_factory=list)
    _largest: list[tuple[float, int, Example]] = field(default_factory=list)
    _least: float = 0.0
    _order: itertools.count[int] = field(default_factory=itertools.count)

    @property
    def changed(self) -> int:
        return self.compared - self.same

    @property
    def equal(self) -> bool:
        return not (self.changed or self.only_before or self.only_after)

    @property
    def largest(self) -> list[Example]:
        """Those whose numbers are furthest apart, the furthest first."""
        return [example for _, _, example in sorted(self._largest, reverse=True)]

    def record(self, where: Placed, at: int, key: Any, before: Any, after: Any) -> None:
        """A record that both sides have: number `at` of `where`, which can name its place."""
        self.compared += 1
        furthest = 0.0
        if before is None or after is None:
            if self._failed(before, after):
                return
        elif type(before) is type(after) is float:  # by far the most there are
            furthest = abs(before - after)
            if furthest <= self.tolerance:
                self.same += 1
                return
            self._change("", before, after)
        else:
            found: list[tuple[str, Any, Any]] = []
            _differences("", before, after, self.tolerance, found)
            if not found:
                self.same += 1
                return
            furthest = max(self._change(path, old, new) for path, old, new in found)
        if len(self.examples) < self.examples_max or furthest > self._least:
            self._keep(Example(where.place(at), key, before, after), furthest)

    def numbers(
        self, where: Placed, ats: Sequence[int], keys: Sequence[Any], before: list[float], after: list[float]
    ) -> None:
        """Records whose predictions are all floats; the same as `record` for each of them, thirty times as quick.

        ats: their numbers in `where`. keys: of all records of `where`, or none.
        """
        import polars  # 0.2 s, and only where many numbers are compared

        apart = (polars.Series(before) - polars.Series(after)).abs().rename("apart")
        self.compared += len(ats)
        differ = (apart > self.tolerance) | apart.is_nan()
        changed = polars.DataFrame({"at": polars.arange(len(ats), eager=True), "apart": apart}).filter(differ)
        self.same += len(ats) - len(changed)
        if changed.is_empty():
            return
        found = self.fields.setdefault("", Field())
        known = changed["apart"].filter(changed["apart"].is_not_nan())
        found.numbers.add_all(known)
        found.others += len(changed) - len(known)
        first = changed["at"].head(max(0, self.examples_max - len(self.examples))).to_list()
        furthest = (
            changed.filter(polars.col("apart") > self._least).top_k(self.examples_max, by="apart")["at"].to_list()
        )
        for index in sorted({*first, *furthest}):
            at = ats[index]
            example = Example(where.place(at), keys[at] if keys else None, before[index], after[index])
            self._keep(example, abs(before[index] - after[index]), among_first=index in first)

    def records_same(self, count: int, failed: int) -> None:
        """Records that are equal to the byte. failed: those of them that have no prediction."""
        self.compared += count
        self.same += count
        self.failed_both += failed

    def _failed(self, before: Any, after: Any) -> bool:
        """Whether both have no prediction, and so are the same."""
        if before is after:
            self.failed_both += 1
            self.same += 1
            return True
        if before is None:
            self.failed_before += 1
        else:
            self.failed_after += 1
        return False

    def _change(self, path: str, old: Any, new: Any) -> float:
        seen = self.fields.setdefault(path, Field())
        if _is_number(old) and _is_number(new):
            apart = abs(old - new)
            if not math.isnan(apart):
                seen.numbers.add(float(apart))
                if isinstance(old, int) and isinstance(new, int):
                    seen.label(str(old), str(new))
                return float(apart)
        if _is_label(old) and _is_label(new):
            seen.label(_shown(old), _shown(new))
        else:
            seen.others += 1
        return 0.0

    def _keep(self, example: Example, furthest: float, *, among_first: bool = True) -> None:
        if among_first and len(self.examples) < self.examples_max:
            self.examples.append(example)
        if furthest > 0 and self.examples_max:
            entry = (furthest, next(self._order), example)
            if len(self._largest) < self.examples_max:
                heapq.heappush(self._largest, entry)
            else:
                heapq.heappushpop(self._largest, entry)
            if len(self._largest) == self.examples_max:
                self._least = self._largest[0][0]

    def to_json(self) -> dict[str, Any]:
        return {
            "before": self.before,
            "after": self.after,
            "tolerance": self.tolerance,
            "equal": self.equal,
            "compared": self.compared,
            "same": self.same,
            "changed": self.changed,
            "failed_before_only": self.failed_before,
            "failed_after_only": self.failed_after,
            "failed_both": self.failed_both,
            "only_before": self.only_before,
            "only_after": self.only_after,
            "repeated_keys": self.repeated,
            "fields": {path or "prediction": _field_json(found) for path, found in sorted(self.fields.items())},
            "examples": [example.to_json() for example in self.examples],
            "largest": [example.to_json() for example in self.largest],
        }


def _field_json(found: Field) -> dict[str, Any]:
    told: dict[str, Any] = {}
    if found.numbers.count:
        told["numbers"] = {
            "changed": found.numbers.count,
            "mean": found.numbers.mean,
            "max": found.numbers.largest,
            **{f"p{round(share * 100)}": found.numbers.quantile(share) for share in QUANTILES},
        }
    if found.labels:
        told["labels"] = [
            {"before": before, "after": after, "count": count} for (before, after), count in found.labels.most_common()
        ]
    if found.labels is None:
        told["texts"] = "too many different ones to be counted apart"
    if found.others:
        told["other_kinds"] = found.others
    return told


def _differences(path: str, old: Any, new: Any, tolerance: float, found: list[tuple[str, Any, Any]]) -> None:
    """Adds (path, old, new) for each value that differs by more than the tolerance. A list of numbers is one value: the
    pair of numbers in it that are furthest apart.
    """
    if old == new and type(old) is type(new):
        return
    if isinstance(old, dict) and isinstance(new, dict):
        for key in old | new:
            below = f"{path}.{key}" if path else str(key)
            _differences(below, old.get(key, _ABSENT), new.get(key, _ABSENT), tolerance, found)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        _lists(path, old, new, tolerance, found)
    elif not (_is_number(old) and _is_number(new) and abs(old - new) <= tolerance):
        found.append((path, old, new))


def _lists(path: str, old: list[Any], new: list[Any], tolerance: float, found: list[tuple[str, Any, Any]]) -> None:
    if all(map(_is_number, old)) and all(map(_is_number, new)):
        before, after = max(zip(old, new, strict=True), key=lambda pair: abs(pair[0] - pair[1]))
        if abs(before - after) > tolerance:
            found.append((f"{path}[]", before, after))
        return
    for before, after in zip(old, new, strict=True):
        _differences(f"{path}[]", before, after, tolerance, found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_label(value: Any) -> bool:
    return isinstance(value, str | bool) or value is None or value is _ABSENT


def _shown(value: Any) -> str:
    return "(absent)" if value is _ABSENT else "null" if value is None else str(value)
