"""A plain function, `module:function`, of the model's folders or of what is installed
(docs/guides/models/function.md).
"""

from __future__ import annotations

import importlib
import inspect
from typing import TYPE_CHECKING, Any

from tidemill_runtime.models import shapes
from tidemill_runtime.models.kinds import PackageInfo
from tidemill_runtime.models.port import Model, folders_of, importable, load_failed, missing, unusable

if TYPE_CHECKING:
    from tidemill_runtime.contract import Manifest


def load(info: PackageInfo, manifest: Manifest) -> Model:
    """The function, called with batches if its first parameter says so, else with one record at a time."""
    importable(manifest)
    module, _, path = info.entry.partition(":")
    try:
        found: Any = importlib.import_module(module)
    except ImportError as error:
        raise missing(error) from error
    except (Exception, SystemExit) as error:
        raise load_failed(error) from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise unusable(f"{module} has no {path}")
        found = getattr(found, name)
    if not callable(found) or isinstance(found, type):
        raise unusable(f"{info.entry} is no function, it is of the type {type(found).__name__}")
    if inspect.iscoroutinefunction(found):
        raise unusable(f"{info.entry} is an async function; give a plain one")
    wanted = shapes.of_function(found)
    stated = info.options.get("batch")
    if stated is not None:
        wanted = shapes.Shape(stated, stated != shapes.RECORD)
    close = getattr(found, "close", None)
    return Model(found, wanted.name, wanted.batched, close, folders_of(manifest), record=wanted.record)
