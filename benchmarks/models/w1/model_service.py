# ruff: noqa: INP001, D - a model package, as users bring them
"""W1: 200 trees over 30 features."""

import os

import lightgbm
import numpy


class TreeModel:
    def __init__(self, folder):
        self.folder = folder

    def load(self):
        self.booster = lightgbm.Booster(model_file=os.path.join(self.folder, "model.txt"))
        return True

    def predict(self, batch: numpy.ndarray):
        return self.booster.predict(batch, num_threads=1)
