"""A LightGBM model that was saved as text (docs/guides/models/lightgbm.md)."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any, Callable

from tidemill_runtime.models.columns import Columns, numbers, threads
from tidemill_runtime.models.kinds import PackageInfo
from tidemill_runtime.models.port import Model, folders_of, library, load_failed, unusable

if TYPE_CHECKING:
    from tidemill_runtime.contract import Manifest

_UNNAMED = re.compile(r"Column_\d+")
"""What LightGBM calls the columns of a model that was trained on a matrix."""


def load(info: PackageInfo, manifest: Manifest) -> Model:
    """The booster, called by name where it knows names, else with each record's values in their order."""
    lightgbm = library("lightgbm", "lightgbm")
    try:
        booster = lightgbm.Booster(model_file=info.entry)
    except Exception as error:
        raise load_failed(error) from error
    options = {"num_threads": threads(os.environ)} if threads(os.environ) else {}
    names = booster.feature_name()

    def predict(matrix: Any) -> Any:
        if matrix.shape[1] != len(names):
            raise ValueError(f"the record has {matrix.shape[1]} values, and the model was trained on {len(names)}")
        return booster.predict(matrix, **options)

    folders = folders_of(manifest)
    wanted = info.options.get("columns")
    if wanted is None and all(_UNNAMED.fullmatch(name) for name in names):
        return Model(predict, "numpy", True, None, folders)
    library("polars", "lightgbm")
    if wanted is not None and len(wanted) != len(names):
        raise unusable(f"the option columns names {len(wanted)}, and the model was trained on {len(names)}")
    columns = Columns(wanted or names, sparse=manifest.input.type == "jsonl")
    coded = _categories(info.entry, booster.pandas_categorical or [], columns.names)
    return Model(_by_name(predict, columns, coded), "polars", True, None, folders)


def _by_name(
    predict: Callable[[Any], Any], columns: Columns, coded: dict[str, dict[Any, float]]
) -> Callable[[Any], Any]:
    underlined = [name for name in columns.names if "_" in name]

    def call(frame: Any) -> Any:
        if underlined:  # LightGBM writes names with an underscore for each blank
            frame = frame.rename(
                {name: name.replace(" ", "_") for name in frame.columns if name.replace(" ", "_") in underlined}
            )
        frame = columns.take(frame)
        for name, codes in coded.items():
            # As LightGBM does it with pandas: the code of a category, NaN for one that was not there in training.
            column = frame[name].replace_strict(list(codes), list(codes.values()), default=None)
            frame = frame.with_columns(column.alias(name))
        return predict(numbers(frame))

    return call


def _categories(path: str, categories: list[list[Any]], names: list[str]) -> dict[str, dict[Any, float]]:
    """Column → category → code, of a model that was trained on pandas columns of categories. Raises FatalError."""
    if not categories:
        return {}
    infos = _header(path, b"feature_infos=").split()
    columns = [name for name, info in zip(names, infos) if info != "none" and not info.startswith("[")]
    if len(columns) != len(categories):
        raise unusable(
            "the model has columns of categories that saw a single one in training, which cannot be told apart here; "
            "call it in a model_service.py"
        )
    return {
        name: {value: float(code) for code, value in enumerate(values)} for name, values in zip(columns, categories)
    }


def _header(path: str, key: bytes) -> str:
    with open(path, "rb") as file:
        for line in file:
            if line.startswith(key):
                return line[len(key) :].decode()
            if line.startswith(b"Tree="):
                break
    return ""
