"""An MLflow model folder, called as its python_function (docs/guides/models/mlflow.md).

MLflow enforces the model's signature itself; what is done here makes that independent of which records happen to be in
one mini-batch: whole numbers in a column of floats, and keys that a record lacks.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Callable

from tidemill_runtime.models.columns import Columns
from tidemill_runtime.models.kinds import PackageInfo
from tidemill_runtime.models.port import Model, folders_of, importable, library, load_failed, missing

if TYPE_CHECKING:
    from tidemill_runtime.contract import Manifest

_FLOATS = {"double": "float64", "float": "float32"}
_WHOLE = {"integer": "int32", "long": "int64"}


def load(info: PackageInfo, manifest: Manifest) -> Model:
    """The model's python_function. Raises FatalError."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # an instance calls nobody that its owner did not name
    pyfunc = library("mlflow.pyfunc", "mlflow")
    importable(manifest)
    try:
        model = pyfunc.load_model(os.path.dirname(info.entry))
    except ImportError as error:
        raise missing(error) from error
    except (Exception, SystemExit) as error:
        raise load_failed(error) from error
    signature = model.metadata.signature
    schema = signature.inputs if signature is not None else None
    folders = folders_of(manifest)
    if schema is None:
        return Model(_plain(model.predict), "pandas", True, None, folders)
    if not schema.is_tensor_spec():
        columns = Columns(schema.input_names(), sparse=manifest.input.type == "jsonl")
        types = {str(each.name): str(getattr(each.type, "name", each.type)) for each in schema.inputs}
        optional = set(schema.optional_input_names())
        return Model(_by_name(_plain(model.predict), columns, types, optional), "pandas", True, None, folders)
    if schema.has_input_names():
        return Model(_of_tensors(_plain(model.predict), schema), "pandas", True, None, folders)
    return Model(_of_tensor(_plain(model.predict), schema), "numpy", True, None, folders)


def _plain(predict: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """predict, with MLflow's errors without the data that they repeat, so that alike errors look alike."""

    def call(batch: Any) -> Any:
        try:
            return predict(batch)
        except Exception as error:
            text = str(error)
            cause = text.partition("'. Error: ")[2] or text.partition(". Error: ")[2]
            if not text.startswith("Failed to enforce schema") or not cause:
                raise
            raise ValueError(f"the record does not fit the model's signature: {cause}") from None

    return call


def _by_name(
    predict: Callable[[Any], Any], columns: Columns, types: dict[str, str], optional: set[str]
) -> Callable[[Any], Any]:
    def call(frame: Any) -> Any:
        unknown = [name for name in optional if name not in frame.columns]
        frame = columns.take(frame.reindex(columns=[*frame.columns, *unknown]) if unknown else frame)
        fitted = {name: _fitted(frame[name], types[name]) for name in columns.names}
        return predict(frame.assign(**fitted))

    return call


def _fitted(series: Any, wanted: str) -> Any:
    """Numbers in the type that the signature has, where nothing is lost by it; all else is for MLflow to judge."""
    if wanted in _FLOATS and (series.dtype.kind in "iuf" or series.isna().all()):
        return series.astype(_FLOATS[wanted])
    if wanted in _WHOLE and series.dtype.kind in "iu":
        narrow = series.astype(_WHOLE[wanted])
        return narrow if (narrow == series).all() else series
    return series


def _of_tensor(predict: Callable[[Any], Any], schema: Any) -> Callable[[Any], Any]:
    """One tensor without a name: the values of each record in their order."""
    dtype = schema.inputs[0].type

    def call(matrix: Any) -> Any:
        return predict(matrix.astype(dtype))

    return call


def _of_tensors(predict: Callable[[Any], Any], schema: Any) -> Callable[[Any], Any]:
    """Tensors with names: the columns of their names."""
    import numpy  # there wherever MLflow is; after the fork

    columns = Columns(schema.input_names(), sparse=False)
    specs = {each.name: each for each in schema.inputs}

    def call(frame: Any) -> Any:
        taken = columns.take(frame)
        feed = {}
        for name in columns.names:
            array = numpy.asarray(taken[name].tolist(), dtype=specs[name].type)
            rank = len(specs[name].shape)
            feed[name] = array.reshape(array.shape + (1,) * (rank - array.ndim))
        return predict(feed)

    return call
