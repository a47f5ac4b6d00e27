"""Telling an error of want of memory from others, whichever library raised it, and freeing what can be freed.

Used by isolation: what did not fit with many records is tried again with fewer.
"""

from __future__ import annotations

import contextlib
import gc
import sys

_TYPES = ("OutOfMemoryError", "ResourceExhaustedError")  # torch, TensorFlow
_WORDS = (
    "out of memory",  # CUDA, HIP, MPS
    "cublas_status_alloc_failed",
    "cudnn_status_alloc_failed",
    "cudaerrormemoryallocation",
    "failed to allocate memory",  # ONNX Runtime
    "resource_exhausted",  # XLA
    "std::bad_alloc",
    "cannot allocate memory",
)


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether this is how a library says that memory, of the machine or of a device, is not enough."""
    if isinstance(error, MemoryError) or type(error).__name__ in _TYPES:
        return True
    message = str(error).lower()
    return any(words in message for words in _WORDS)


def free_memory() -> None:
    """Gives back what failed calls left behind: cycles, and what PyTorch keeps of a device for itself."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None:
        with contextlib.suppress(Exception):  # a device in trouble; the next call will tell
            torch.cuda.empty_cache()
