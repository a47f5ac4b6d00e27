"""Whether records can be read into columns in this process; asked by the codecs of lines, once they know the model."""

from __future__ import annotations

import functools
from types import ModuleType
from typing import Optional

from tidemill_runtime.codec.records import COLUMNAR
from tidemill_runtime.faults import log


def frames_for(shape: str) -> Optional[ModuleType]:
    """`codec.frames` where the model takes columns and polars is there, else None: then records are read one by one."""
    return _frames() if shape in COLUMNAR else None


@functools.lru_cache(maxsize=1)
def _frames() -> Optional[ModuleType]:
    try:
        from tidemill_runtime.codec import frames  # polars takes 0.2 s, and most models need none
    except ImportError as error:
        log(f"records are read one by one: {error}; tidemill-runtime[columns] reads them several times faster")
        return None
    return frames if frames.usable() else None
