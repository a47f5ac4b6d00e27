"""Loading `model_service.py` and calling its class.

Two shapes are told apart by `predict` alone (docs/adr/0004-model-interface.md): a class whose predict says by a type
hint, or by the attribute `batch`, what a batch is gets mini-batches; every other gets one record at a time, as tiinfer
does.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from typing import TYPE_CHECKING, Any, Callable

from tidemill_runtime.faults import FatalError
from tidemill_runtime.models import shapes
from tidemill_runtime.models.kinds import PackageInfo
from tidemill_runtime.models.port import Model, folders_of, load_failed, missing

if TYPE_CHECKING:
    from tidemill_runtime.contract import Manifest


def load(info: PackageInfo, manifest: Manifest) -> Model:
    """The package's entry imported, its class made and loaded. Raises FatalError."""
    cls = getattr(_import(info.entry), info.class_name)
    try:
        instance = cls(manifest.model or manifest.code) if _takes_folder(cls) else cls()
        loaded = instance.load() if hasattr(instance, "load") else None
        if hasattr(instance, "warm_up"):
            instance.warm_up()
    except ImportError as error:
        raise missing(error) from error
    except (Exception, SystemExit) as error:
        raise load_failed(error) from error
    if loaded is False:
        raise FatalError(
            "model_load_failed", f"{info.class_name}.load() returned False", evidence="load() returned False"
        )
    wanted = shapes.of_model(cls)
    return Model(
        _chain(instance),
        wanted.name,
        wanted.batched,
        getattr(instance, "close", None),
        folders_of(manifest),
        record=wanted.record,
    )


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
        raise missing(error) from error
    except (Exception, SystemExit) as error:
        raise load_failed(error) from error
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
