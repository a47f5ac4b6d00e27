"""Tidemill: a model over a batch of data; compute is taken when the batch arrives and given back the moment it is done.

`tidemill.run(...)` runs a task here, without a server. `tidemill.Client(...)` speaks to one. `tidemill.verify(...)`
checks results against their receipt, `tidemill.diff(...)` compares two of them. All are imported when they are first
used, so that `import tidemill` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidemill.client import Client
    from tidemill.comparing.diff import diff
    from tidemill.local.verifying import verify
    from tidemill.running import Result, run

__version__ = "0.1.0"
__all__ = ["Client", "Result", "__version__", "diff", "run", "verify"]

_HOMES = {
    "Client": "tidemill.client",
    "diff": "tidemill.comparing.diff",
    "Result": "tidemill.running",
    "run": "tidemill.running",
    "verify": "tidemill.local.verifying",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tidemill' has no attribute {name!r}")
    import importlib  # only when something is asked for

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return __all__
