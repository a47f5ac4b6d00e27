# ruff: noqa: INP001, D - a model package, as users bring them
"""Takes its time for each record."""

import os
import time


class SlowModel:
    def load(self):
        self.record_s = float(os.environ["BENCHMARK_RECORD_S"])

    def predict(self, batch: list[dict]):
        time.sleep(self.record_s * len(batch))
        return [record["id"] for record in batch]
