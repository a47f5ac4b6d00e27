# ruff: noqa: INP001, D - a model package, as users bring them
"""W3: the mean colour of a picture."""

import numpy
from PIL import Image


class ColourModel:
    def load(self):
        return True

    def predict(self, batch: list[str]):
        return [numpy.asarray(Image.open(path)).mean((0, 1)).round(3).tolist() for path in batch]
