"""What a model returned for a batch, as a list with one prediction for each record. Used by isolation."""

from __future__ import annotations

from typing import Any


class WrongLength(Exception):
    """The number of predictions is not that of the records."""


def as_list(returned: Any, count: int) -> list[Any]:
    """`count` predictions of a sequence, an array, a frame, a mapping of columns or an iterator. Raises WrongLength."""
    predictions = returned if type(returned) is list else _listed(returned)
    if len(predictions) != count:
        raise WrongLength(f"predict returned {len(predictions)} predictions for {count} records")
    return predictions


def _listed(returned: Any) -> list[Any]:
    if isinstance(returned, dict):
        return _rows({name: _listed(column) for name, column in returned.items()})
    if isinstance(returned, (str, bytes)) or returned is None:
        raise WrongLength(
            f"predict returned {type(returned).__name__}; for a batch it has to return one prediction for each record"
        )
    if hasattr(returned, "to_dicts"):  # polars
        return list(returned.to_dicts())
    if hasattr(returned, "to_pylist"):  # pyarrow
        return list(returned.to_pylist())
    if hasattr(returned, "columns") and hasattr(returned, "to_dict"):  # pandas
        return list(returned.to_dict("records"))
    if hasattr(returned, "tolist"):  # arrays and series
        listed = returned.tolist()
        if isinstance(listed, list):
            return listed
        raise WrongLength(
            "predict returned a single value; for a batch it has to return one prediction for each record"
        )
    try:
        return list(returned)
    except TypeError:
        name = type(returned).__name__
        raise WrongLength(
            f"predict returned {name}; for a batch it has to return one prediction for each record"
        ) from None


def _rows(columns: dict[Any, list[Any]]) -> list[Any]:
    lengths = {len(column) for column in columns.values()}
    if len(lengths) > 1:
        raise WrongLength(f"predict returned columns of different lengths: {sorted(lengths)}")
    names = list(columns)
    return [dict(zip(names, values)) for values in zip(*columns.values())]
