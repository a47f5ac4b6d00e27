# ruff: noqa: INP001, D - a model package, as users bring them
"""Takes its time to load: for as long as it does, what it was given is taken, and others queue."""

import time
from typing import Any


class Model:
    def load(self) -> None:
        time.sleep(600)

    def predict(self, batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return batch
