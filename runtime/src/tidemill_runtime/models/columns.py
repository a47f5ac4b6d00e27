"""A library model's columns, taken out of frames of records by their names and in its order. Used by the adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

from tidemill_runtime.faults import log


class Columns:
    """names: what the model wants, in order. sparse: the records are JSON, and what one lacks is null, as it would be
    if another record of the mini-batch had it; other formats have the same columns everywhere, so that one that is
    absent is an error.
    """

    def __init__(self, names: Sequence[str], *, sparse: bool) -> None:
        self.names = [str(name) for name in names]
        self._sparse = sparse
        self._told = False

    def take(self, frame: Any) -> Any:
        """Of a pandas or polars frame, one with the model's columns alone. Raises ValueError naming what is absent."""
        there = [str(name) for name in frame.columns]
        absent = [name for name in self.names if name not in there]
        if not absent:
            return frame[self.names]
        if not self._sparse or there == ["value"]:  # records that are no objects have the one column `value`
            raise ValueError(self._lacks(absent, there))
        if not self._told:
            self._told = True
            log(f"{self._lacks(absent, there)}; taken as missing values where a record lacks them")
        return _widened(frame, absent)[self.names]

    def explained(self, frame: Any, error: Exception) -> Exception:
        """What the library said of a frame that `take` gave, or that a column was absent where that is the cause."""
        empty = [name for name in self.names if _is_empty(frame[name])]
        return ValueError(f"{error} (no value in {_listed(empty)})") if empty else error

    def _lacks(self, absent: list[str], there: list[str]) -> str:
        plural = "s" if len(absent) > 1 else ""
        return (
            f"the records have no column{plural} {_listed(absent)}, which the model wants; they have {_listed(there)}"
        )


def numbers(frame: Any) -> Any:
    """A float64 matrix of a polars frame; null is NaN. Raises ValueError for a column that holds no numbers."""
    import polars  # the adapter that calls it has a polars frame

    for name, dtype in zip(frame.columns, frame.dtypes):
        if not (dtype.is_numeric() or dtype in (polars.Boolean, polars.Null)):
            raise ValueError(f"column {name!r} has values of the type {dtype}, and the model wants numbers")
    return frame.cast(polars.Float64).to_numpy(order="c")


def threads(environment: Any) -> Optional[int]:
    """How many threads a library may use, None where nobody said. environment: os.environ."""
    try:
        count = int(environment.get("OMP_NUM_THREADS", ""))
    except ValueError:
        return None
    return count if count > 0 else None


def _widened(frame: Any, absent: list[str]) -> Any:
    if hasattr(frame, "reindex"):  # pandas
        return frame.reindex(columns=[*frame.columns, *absent])
    import polars  # the frame is one

    return frame.with_columns([polars.lit(None, dtype=polars.Float64).alias(name) for name in absent])


def _is_empty(column: Any) -> bool:
    nulls = column.isna() if hasattr(column, "isna") else column.is_null()
    return bool(nulls.all())


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in list(names)[:8])
    return f"{shown}, …" if len(names) > 8 else shown or "none"
