"""What `tidemill.demo` makes: a model that is trained on real data, a folder of records for it, three of them broken.

The data are scikit-learn's handwritten digits (1,797 images of 8 × 8 dots, from the UCI repository). Half of them
train the model; the other half, with a little noise so that no two records are the same, is what it is asked about.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FILES, RECORDS_PER_FILE = 8, 2_500
NOISE = 1.2
"""Standard deviation of the noise, of 16 shades."""
TRUNCATED, SHORT, WORDS = (1, 1_199), (4, 640), (6, 2_105)
"""File and line (from 0) of the three broken records."""

MODEL_SERVICE = '''\
"""The model package of the demonstration: tells handwritten digits apart."""

from pathlib import Path

import joblib
import numpy


class Model:
    def __init__(self, model_dir):
        self.model_dir = Path(model_dir)

    def load(self):
        self.classifier = joblib.load(self.model_dir / "model" / "digits.joblib")

    def predict(self, batch):
        pixels = numpy.array([record["pixels"] for record in batch], dtype=float)
        digits = self.classifier.predict(pixels)
        return [{"id": record["id"], "digit": int(digit)} for record, digit in zip(batch, digits)]
'''


@dataclass(frozen=True)
class Made:
    """truth: the digit of each record by file name, None for a broken one. accuracy: of the model, on images without
    noise.
    """

    truth: dict[str, list[int | None]]
    accuracy: float


def make(folder: Path) -> Made:
    """Writes `folder/model` (a package) and `folder/input` (JSON lines)."""
    # scikit-learn takes seconds to import, and only the demonstration needs it.
    import joblib  # type: ignore[import-untyped, unused-ignore]
    import numpy
    from sklearn.datasets import load_digits  # type: ignore[import-untyped, unused-ignore]
    from sklearn.model_selection import train_test_split  # type: ignore[import-untyped, unused-ignore]
    from sklearn.svm import SVC  # type: ignore[import-untyped, unused-ignore]

    pixels, digits = load_digits(return_X_y=True)
    train_pixels, pixels, train_digits, digits = train_test_split(
        pixels, digits, test_size=0.5, random_state=0, stratify=digits
    )
    classifier = SVC(gamma=0.001).fit(train_pixels, train_digits)
    package = folder / "model"
    (package / "batch").mkdir(parents=True)
    (package / "model").mkdir()
    joblib.dump(classifier, package / "model" / "digits.joblib")
    (package / "batch" / "model_service.py").write_text(MODEL_SERVICE)
    (package / "requirements.txt").write_text("scikit-learn\n")

    chance = numpy.random.default_rng(0)
    taken = numpy.arange(FILES * RECORDS_PER_FILE) % len(pixels)
    noisy = (
        numpy.clip(numpy.rint(pixels[taken] + chance.normal(0, NOISE, (len(taken), 64))), 0, 16).astype(int).tolist()
    )
    (folder / "input").mkdir()
    truth: dict[str, list[int | None]] = {}
    for file in range(FILES):
        name = f"digits-{file + 1}.jsonl"
        rows = range(file * RECORDS_PER_FILE, (file + 1) * RECORDS_PER_FILE)
        lines = [json.dumps({"id": f"{row:05d}", "pixels": noisy[row]}, separators=(",", ":")) for row in rows]
        truth[name] = [int(digits[taken[row]]) for row in rows]
        for place, line in _broken(file, lines).items():
            lines[place], truth[name][place] = line, None
        (folder / "input" / name).write_text("\n".join(lines) + "\n")
    return Made(truth, float(classifier.score(pixels, digits)))


def _broken(file: int, lines: list[str]) -> dict[int, str]:
    """The broken records of a file, by line: one cut off, one with too few pixels, one with a word among the pixels."""
    found: dict[int, str] = {}
    if file == TRUNCATED[0]:
        found[TRUNCATED[1]] = lines[TRUNCATED[1]][:90]
    for kind in (SHORT, WORDS):
        if file == kind[0]:
            record: dict[str, Any] = json.loads(lines[kind[1]])
            record["pixels"] = record["pixels"][:60] if kind is SHORT else [*record["pixels"][:63], "sixteen"]
            found[kind[1]] = json.dumps(record, separators=(",", ":"))
    return found
