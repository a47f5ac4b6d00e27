"""Loading `model_service.py` and calling its class; the worker's only door to a user's model.

Two shapes are told apart by `predict` alone (docs/adr/0004-model-interface.md): a class whose predict says by a type
hint, or by the attribute `batch`, what a batch is gets mini-batches; every other gets one record at a time, as tiinfer
does.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback
from typing import Any, Callable, Optional

from tidemill_runtime.faults import FatalError
from tidemill_runtime.models import shapes
from tidemill_runtime.models.inspect import PackageError, inspect_package


class Model:
    """A loaded model. batched: `call` takes a batch of `shape` and returns its results; otherwise one record and one
    result. folders: of its code; what lies in them is named without them, for they are elsewhere on each machine.
    """

    def __init__(
        self,
        call: Callable[[Any], Any],
        shape: str,
        batched: bool,
        close: Optional[Callable[[], Any]],
        folders: tuple[str, ...] = (),
    ) -> None:
        self.folders = folders
        self.call = call
        self.shape = shape
        self.batched = batched
        self._close = close

    def close(self) -> None:
        if self._close is not None:
            self._close()


def load_model(model: Optional[str], code: Optional[str]) -> Model:
    """Imports the package's entry, makes its class and calls load(). Raises FatalError."""
    try:
        info = inspect_package(model, code)
    except PackageError as error:
        raise FatalError("model_not_found", error.message, evidence=error.file or "") from None
    cls = getattr(_import(info.entry), info.class_name)
    try:
        instance = cls(model or code) if _takes_folder(cls) else cls()
        loaded = instance.load() if hasattr(instance, "load") else None
        if hasattr(instance, "warm_up"):
            instance.warm_up()
    except ImportError as error:
        raise _missing(error) from error
    except (Exception, SystemExit) as error:
        raise _load_failed(error) from error
    if loaded is False:
        raise FatalError(
            "model_load_failed", f"{info.class_name}.load() returned False", evidence="load() returned False"
        )
    shape, batched = shapes.of_model(cls)
    folders = tuple(os.path.abspath(folder) for folder in (code, model) if folder)
    return Model(_chain(instance), shape, batched, getattr(instance, "close", None), folders)


def _import(entry: str) -> Any:
    folder = os.path.dirname(entry)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    _offer_tiinfer(entry)
    spec = importlib.util.spec_from_file_location("model_service", entry)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["model_service"] = module  # pickled models name their classes by it
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise _missing(error) from error
    except (Exception, SystemExit) as error:
        raise _load_failed(error) from error
    return module


def _offer_tiinfer(entry: str) -> None:
    with open(entry, "rb") as file:
        if b"tiinfer" not in file.read():
            return
    try:
        import tiinfer  # type: ignore[import-untyped,unused-ignore]  # noqa: F401  (only to see whether it can be)
    except ImportError:
        from tidemill_runtime.models import tiinfer as stand_in

        sys.modules["tiinfer"] = stand_in


def _takes_folder(cls: Any) -> bool:
    """Whether the constructor wants the model's folder: it has a parameter of its own."""
    code = getattr(cls.__init__, "__code__", None)
    return code is not None and (code.co_argcount > 1 or bool(code.co_flags & 0x04))


def _chain(instance: Any) -> Callable[[Any], Any]:
    """preprocess → predict → postprocess, leaving out what the class does not define itself."""
    steps: list[Callable[[Any], Any]] = []
    for name in ("preprocess", "predict", "postprocess"):
        step = getattr(instance, name, None)
        if step is None:
            continue
        owner = next((base for base in type(instance).__mro__ if name in vars(base)), None)
        if name == "predict" or owner is None or not owner.__module__.startswith(("tiinfer", "tidemill_runtime")):
            steps.append(step)
    if len(steps) == 1:
        return steps[0]
    chain = tuple(steps)

    def call(request: Any) -> Any:
        for step in chain:
            request = step(request)
        return request

    return call


def _missing(error: ImportError) -> FatalError:
    name = error.name or "a module"
    return FatalError(
        "missing_module",
        f"the model needs {name}, which is not installed here; add it to the package's requirements.txt",
        evidence=_last_line(error),
        traceback=_trace(error),
    )


def _load_failed(error: BaseException) -> FatalError:
    return FatalError(
        "model_load_failed", f"the model could not be loaded: {_last_line(error)}", _last_line(error), _trace(error)
    )


def _last_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(type(error), error)).strip()


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__))
