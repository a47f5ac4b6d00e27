"""The port between a model of any kind and the rest of the runtime: how it is called, and what is said where it cannot
be loaded.

Each module of this package that adapts a kind has `load(info, manifest) -> Model`; `loading` chooses it.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, Any, Callable, Optional

from tidemill_runtime.faults import FatalError

if TYPE_CHECKING:
    from tidemill_runtime.contract import Manifest
    from tidemill_runtime.models.outside import Clock

_PACKAGES = {"sklearn": "scikit-learn", "mlflow": "mlflow-skinny"}
"""Names to install by, where they differ from those to import by."""


class Model:
    """A loaded model. batched: `call` takes a batch of `shape` and returns its results; otherwise one record and one
    result. folders: of its code; what lies in them is named without them, for they are elsewhere on each machine.
    clock: of a model that computes in another process. record: the type of the records in a batch of the shape "typed".
    """

    def __init__(
        self,
        call: Callable[[Any], Any],
        shape: str,
        batched: bool,
        close: Optional[Callable[[], Any]],
        folders: tuple[str, ...] = (),
        clock: Optional[Clock] = None,
        record: Any = None,
    ) -> None:
        self.clock = clock
        self.record = record
        self.folders = folders
        self.call = call
        self.shape = shape
        self.batched = batched
        self._close = close

    def close(self) -> None:
        if self._close is not None:
            self._close()


def folders_of(manifest: Manifest) -> tuple[str, ...]:
    """The folders of the model's code, absolute."""
    return tuple(os.path.abspath(folder) for folder in (manifest.code, manifest.model) if folder)


def importable(manifest: Manifest) -> None:
    """Makes the modules of the model's folders importable, the code folder's first."""
    for folder in reversed(folders_of(manifest)):
        if folder not in sys.path:
            sys.path.insert(0, folder)


def unusable(message: str, evidence: str = "") -> FatalError:
    """A model that was loaded and cannot be called."""
    return FatalError("model_load_failed", message, evidence or message)


def missing(error: ImportError) -> FatalError:
    """Something that the model imports is not there."""
    name = error.name or "a module"
    return FatalError(
        "missing_module",
        f"the model needs {name}, which is not installed here; add it to the package's requirements.txt",
        evidence=_last_line(error),
        traceback=_trace(error),
    )


def library(name: str, extra: str) -> Any:
    """An imported module of the library that a kind of model needs. extra: of this package, that installs it.

    Raises FatalError where it is not there.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        top = name.partition(".")[0]
        package = _PACKAGES.get(top, top)
        if error.name is not None and error.name.partition(".")[0] != top:
            raise missing(error) from error
        raise FatalError(
            "missing_module",
            f"the model needs {top}, which is not installed here; install tidemill-runtime[{extra}], or add {package} "
            "to the package's requirements.txt",
            evidence=_last_line(error),
            traceback=_trace(error),
        ) from error


def load_failed(error: BaseException) -> FatalError:
    """What was raised while the model was loaded."""
    return FatalError(
        "model_load_failed", f"the model could not be loaded: {_last_line(error)}", _last_line(error), _trace(error)
    )


def _last_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(type(error), error)).strip()


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
