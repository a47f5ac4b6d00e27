"""What a model returned for a batch: one prediction for each record, in whatever form it likes. Used by isolation.

A form of columns (an array, a frame, a table, a dict of columns) is kept as it is, so that results are written without
an object per record; `listed` makes a list of any of them.
"""

from __future__ import annotations

from typing import Any, Optional


class WrongLength(Exception):
    """The number of predictions is not that of the records."""


def checked(returned: Any, count: int) -> Any:
    """What was returned, known to hold `count` predictions; an iterator as a list. Raises WrongLength."""
    if hasattr(returned, "__iter__") and not hasattr(returned, "__len__"):
        returned = list(returned)
    found = _length(returned)
    if found != count:
        raise WrongLength(f"predict returned {found} predictions for {count} records")
    return returned


def listed(returned: Any) -> list[Any]:
    """The predictions of a sequence, an array, a frame, a table or a dict of columns that was `checked`."""
    if isinstance(returned, dict):
        columns = [listed(column) for column in returned.values()]
        names = list(returned)
        return [dict(zip(names, values)) for values in zip(*columns)]
    if hasattr(returned, "to_dicts"):  # polars
        return list(returned.to_dicts())
    if hasattr(returned, "to_pylist"):  # pyarrow
        return list(returned.to_pylist())
    if hasattr(returned, "columns") and hasattr(returned, "to_dict"):  # pandas
        return list(returned.to_dict("records"))
    if hasattr(returned, "tolist"):  # arrays and series
        return list(returned.tolist())
    return returned if type(returned) is list else list(returned)


def columns_of(returned: Any) -> Optional[dict[str, Any]]:
    """The columns by name of a dict of columns, a frame or a table, as they are.

    None for what has none, and where names are not text or stand twice.
    """
    columns: list[tuple[Any, Any]]
    if isinstance(returned, dict):
        columns = list(returned.items())
    elif hasattr(returned, "get_columns"):  # polars
        columns = [(column.name, column) for column in returned.get_columns()]
    elif hasattr(returned, "to_pylist") and hasattr(returned, "schema"):  # pyarrow
        columns = list(zip(returned.schema.names, returned.columns))
    elif hasattr(returned, "columns") and hasattr(returned, "iloc"):  # pandas; by place: names may stand twice
        columns = [(name, returned.iloc[:, place]) for place, name in enumerate(returned.columns)]
    else:
        return None
    found = dict(columns)
    return found if found and len(found) == len(columns) and all(type(name) is str for name in found) else None


def kept(returned: Any) -> Any:
    """What stays as it is when the model uses its arrays and lists again for the next call."""
    if isinstance(returned, dict):
        return {name: kept(column) for name, column in returned.items()}
    copy = getattr(returned, "copy", None) or getattr(returned, "clone", None)
    return returned if copy is None else copy()


def _length(returned: Any) -> int:
    if isinstance(returned, dict):
        lengths = {_length(column) for column in returned.values()}
        if len(lengths) > 1:
            raise WrongLength(f"predict returned columns of different lengths: {sorted(lengths)}")
        return lengths.pop() if lengths else 0
    if isinstance(returned, (str, bytes)) or returned is None:
        raise _no_batch(type(returned).__name__)
    shape: Optional[Any] = getattr(returned, "shape", None)  # arrays, frames and tables
    if isinstance(shape, tuple):
        if not shape:
            raise _no_batch("a single value")
        return int(shape[0])
    try:
        return len(returned)
    except TypeError:
        raise _no_batch(type(returned).__name__) from None


def _no_batch(what: str) -> WrongLength:
    return WrongLength(f"predict returned {what}; for a batch it has to return one prediction for each record")
