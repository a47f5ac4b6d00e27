"""A model that loads at once; it notes when its first record came, where the benchmark asks for that."""

import os
import time


class NothingModel:
    def load(self):
        self.note = os.environ.get("BENCHMARK_FIRST_RECORD")
        return True

    def predict(self, batch: list[dict]):
        if self.note:
            with open(self.note, "a") as file:
                file.write("%.6f\n" % time.clock_gettime(time.CLOCK_MONOTONIC))
            self.note = None
        return [1] * len(batch)
