"""How differences are distributed, in flat memory. Used by `report`."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars

_GROWTH = 1.02
"""Each bucket ends 2 % above its beginning, so that a quantile is within 1 % of the true one, whatever is counted (the
idea of DDSketch, Masson, Rim and Lee, VLDB 2019)."""
_LOG = math.log(_GROWTH)
_INFINITE = 1 << 30


@dataclass
class Distribution:
    """Of absolute differences, all above 0."""

    count: int = 0
    total: float = 0.0
    largest: float = 0.0
    _buckets: Counter[int] = field(default_factory=Counter)

    def add(self, difference: float) -> None:
        self.count += 1
        self.total += difference
        self.largest = max(self.largest, difference)
        self._buckets[_bucket(difference)] += 1

    def add_all(self, differences: polars.Series) -> None:
        """The same for many at once."""
        self.count += len(differences)
        self.total += float(differences.sum())
        self.largest = max(self.largest, float(differences.max() or 0.0))  # type: ignore[arg-type]
        finite = differences.filter(differences.is_finite())
        self._buckets[_INFINITE] += len(differences) - len(finite)
        buckets, counts = (finite.log() / _LOG).ceil().cast(int).value_counts()
        self._buckets.update(dict(zip(buckets.to_list(), counts.to_list(), strict=True)))

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """The difference that so large a share is not above; 0 where there are none."""
        rank = share * (self.count - 1)
        seen = 0
        for bucket in sorted(self._buckets):
            seen += self._buckets[bucket]
            if seen > rank:
                return self.largest if bucket == _INFINITE else min(self.largest, 2 * _GROWTH**bucket / (1 + _GROWTH))
        return self.largest


def _bucket(difference: float) -> int:
    return math.ceil(math.log(difference) / _LOG) if difference < math.inf else _INFINITE
