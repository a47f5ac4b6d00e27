"""Stands in for the package `tiinfer` where it is not installed or cannot be imported (it needs mosec and OpenCV).

A batch model uses nothing of it but the base class, so a package that derives from `tiinfer.Model` needs no server
stack.
"""

from __future__ import annotations

from typing import Any


class Model:
    """The shape of tiinfer.Model 0.1.5."""

    def __init__(self, model_dir: str = "") -> None:
        self.model_dir = model_dir

    def __call__(self, request: Any) -> Any:
        return self.postprocess(self.predict(self.preprocess(request)))

    def load(self) -> Any:
        return None

    def preprocess(self, request: Any) -> Any:
        return request

    def predict(self, request: Any) -> Any:
        return request

    def postprocess(self, request: Any) -> Any:
        return request
