"""What runs inside an instance: reads a split, calls the model, writes predictions exactly once.

`BatchModel` is for people who write models; it is loaded when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill_runtime.models.base import BatchModel

__all__ = ["BatchModel"]


def __getattr__(name: str) -> Any:
    if name == "BatchModel":
        from tidemill_runtime.models.base import BatchModel  # an instance without one does not load it

        return BatchModel
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
