"""The worker's only door to a user's model: finds out what the package is, and has its kind's module load it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tidemill_runtime.faults import FatalError
from tidemill_runtime.models.kinds import PackageError, inspect_package
from tidemill_runtime.models.port import Model

if TYPE_CHECKING:
    from tidemill_runtime.contract import Manifest


def load_model(manifest: Manifest) -> Model:
    """The model that the manifest names, ready to be called. Raises FatalError."""
    try:
        info = inspect_package(manifest.model, manifest.code, manifest.function, manifest.command)
    except PackageError as error:
        raise FatalError("model_not_found", error.message, evidence=error.file or "") from None
    adapter = importlib.import_module(f"tidemill_runtime.models.{info.kind}")  # no kind pays for another's imports
    loaded: Model = adapter.load(info, manifest)
    return loaded
