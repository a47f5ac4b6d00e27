"""The typed base for models of one's own, beside `tiinfer.Model`: `from tidemill_runtime import BatchModel`.

Nothing asks for it: a class of the same shape does as well (docs/adr/0004-model-interface.md). It is for editors and
type checkers, and for whoever wants to read in one place what is called and when. Standard library only.
"""

from __future__ import annotations

import os
from typing import Any


class BatchModel:
    """A model that gets mini-batches. The hint of `predict` says what a batch is; without one it is a list of records.

    list[dict], list[str], list[bytes], list[Path], numpy.ndarray, pandas.DataFrame, polars.DataFrame and pyarrow.Table
    are understood. One object is made in each worker process; its methods are called from one thread.
    """

    batch: Any = True
    """What a batch is, where a hint cannot say it: "dict", "str", "bytes", "path", "numpy", "pandas", "polars" or
    "arrow"."""

    def __init__(self, folder: str) -> None:
        """folder: of the package, read-only. Called once in each worker process; nothing heavy belongs here."""
        self.folder = os.fspath(folder)

    def load(self) -> Any:
        """Reads what is needed for predicting, once. Raising, or returning False, fails the task."""

    def warm_up(self) -> None:
        """Called once after `load`, before the first record: for the first slow call of a compiled model."""

    def preprocess(self, batch: Any) -> Any:
        """What `predict` gets for a batch. Its own hint means nothing: that of `predict` says what a batch is."""
        return batch

    def predict(self, batch: Any) -> Any:
        """One prediction for each record of the batch, in order: a list, an array, a frame, a table, a mapping of
        columns, or an iterator.

        Raising fails the record that is to blame and no other: the batch is called again in parts.
        """
        raise NotImplementedError(f"{type(self).__name__} has no predict")

    def postprocess(self, predictions: Any) -> Any:
        """What is written for what `predict` returned; as long as the batch."""
        return predictions

    def close(self) -> None:
        """Called once at the end of a worker that was not killed."""
