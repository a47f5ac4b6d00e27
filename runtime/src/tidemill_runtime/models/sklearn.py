"""A scikit-learn estimator or pipeline in a joblib or pickle file (docs/guides/models/scikit-learn.md).

An estimator that was fitted on a frame gets a frame with its columns; one that was fitted on a matrix gets the values
of each record in their order; one that begins with a vectorizer of text gets texts.
"""

from __future__ import annotations

import importlib.util
import os
from typing import TYPE_CHECKING, Any, Callable, Optional

from tidemill_runtime.models.columns import Columns
from tidemill_runtime.models.kinds import PackageInfo
from tidemill_runtime.models.port import Model, folders_of, importable, library, load_failed, missing, unusable

if TYPE_CHECKING:
    from tidemill_runtime.contract import Manifest


def load(info: PackageInfo, manifest: Manifest) -> Model:
    """The estimator, called by the option `method`. Raises FatalError."""
    library("sklearn", "sklearn")
    joblib = library("joblib", "sklearn")  # reads plain pickles too
    importable(manifest)
    name = os.path.basename(info.entry)
    try:
        estimator = joblib.load(info.entry)
    except ImportError as error:
        raise missing(error) from error
    except (Exception, SystemExit) as error:
        raise load_failed(error) from error
    method = info.options.get("method", "predict")
    if not callable(getattr(estimator, method, None)):
        raise unusable(f"{name} holds a {type(estimator).__name__}, which has no method {method}")
    predict = _dense(getattr(estimator, method))
    fitted = getattr(estimator, "feature_names_in_", None)
    wanted = info.options.get("columns") or fitted
    if wanted is None:
        shape = info.options.get("batch") or _unnamed_shape(estimator)
        return Model(predict, shape, shape != "record", None, folders_of(manifest))
    columns = Columns(wanted, sparse=manifest.input.type == "jsonl")
    if fitted is not None and len(fitted) != len(columns.names):
        raise unusable(f"the option columns names {len(columns.names)}, and {name} was fitted on {len(fitted)}")
    shape = info.options.get("batch", "")
    if shape not in ("pandas", "polars"):
        shape = "pandas" if importlib.util.find_spec("pandas") else "polars"
        library(shape, "sklearn")
    return Model(_by_name(predict, columns, fitted), shape, True, None, folders_of(manifest))


def _by_name(predict: Callable[[Any], Any], columns: Columns, fitted: Optional[Any]) -> Callable[[Any], Any]:
    renamed = None if fitted is None or list(fitted) == columns.names else [str(name) for name in fitted]

    def call(frame: Any) -> Any:
        taken = columns.take(frame)
        given = taken
        if fitted is None:
            given = taken.to_numpy()
        elif renamed is not None:
            given = taken.copy() if hasattr(taken, "copy") else taken.clone()
            given.columns = renamed
        try:
            return predict(given)
        except ValueError as error:
            raise columns.explained(taken, error) from error

    return call


def _unnamed_shape(estimator: Any) -> str:
    """What an estimator wants that knows no names of columns: by its first step."""
    first = estimator
    while hasattr(first, "steps"):
        first = first.steps[0][1]
    if hasattr(first, "build_analyzer"):  # CountVectorizer, TfidfVectorizer, HashingVectorizer
        return "str"
    if type(first).__name__ in ("DictVectorizer", "FeatureHasher"):
        return "dict"
    return "numpy"


def _dense(predict: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Sparse matrices as arrays; the list of arrays that models of several targets give as one."""

    def call(batch: Any) -> Any:
        found = predict(batch)
        if hasattr(found, "toarray"):
            return found.toarray()
        if isinstance(found, list) and found and all(hasattr(each, "shape") for each in found):
            return [list(row) for row in zip(*(each.tolist() for each in found))]
        return found

    return call
