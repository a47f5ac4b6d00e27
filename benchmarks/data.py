"""Inputs of the workloads W1-W4, made from fixed seeds. Scale 1 is about 8 GB; made once per folder and scale.

W1 rows of 30 numbers for LightGBM (JSONL, CSV, Parquet), W2 texts for an embedding model, W3 many small PNG files,
W4 lines of 200 bytes for a model that does next to nothing.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from benchmarks.report import progress

FEATURES = [f"f{number}" for number in range(30)]
W1_ROWS, W1_FILES = 5_000_000, 40
W2_TEXTS = 3_000
W3_FILES = 20_000
W4_LINES, W4_FILES = 20_000_000, 20
WORKLOADS = ("w1_jsonl", "w1_csv", "w1_parquet", "w2", "w3", "w4", "w4_typed")
"""w4_typed is w4 with a model that says what a record is."""

_WORDS = """the of and to a in is it you that he was for on are with as his they be at one have this from or had by
hot word but what some we can out other were all there when up use your how said an each she which do their time if
will way about many then them write would like so these her long make thing see him two has look more day could go
come did number sound no most people my over know water than call first who may down side been now find any new work
part take get place made live where after back little only round man year came show every good me give our under name
very through just form sentence great think say help low line differ turn cause much mean before move right boy old
too same tell does set three want air well also play small end put home read hand port large spell add even land here
must big high such follow act why ask men change went light kind off need house picture try us again animal point
mother world near build self earth""".split()  # noqa: SIM905 - a list of words is no easier to read


def make(root: Path, workload: str, scale: float) -> tuple[Path, int]:
    """The input folder of a workload and the number of its records."""
    workload = workload.removesuffix("_typed")
    folder = root / f"scale-{scale:g}" / workload
    done = folder.with_suffix(".done")
    if not done.exists():
        progress(f"making the input of {workload} …")
        folder.mkdir(parents=True, exist_ok=True)
        maker = {"w2": _texts, "w3": _pictures, "w4": _lines}.get(workload, _tables)
        done.write_text(str(maker(folder, workload, scale)))
    return folder, int(done.read_text())


def make_tree_model(path: Path) -> None:
    """LightGBM's model file of W1: 200 trees over 30 features."""
    import lightgbm  # slow to import, and only this benchmark needs it
    from sklearn.datasets import make_classification

    if path.exists():
        return
    progress("training the model of w1 …")
    x, y = make_classification(
        60_000, len(FEATURES), n_informative=18, n_redundant=6, n_classes=2, flip_y=0.05, random_state=7
    )
    x = (x - x.mean(0)) / x.std(0)
    model = lightgbm.LGBMClassifier(n_estimators=200, num_leaves=31, n_jobs=2, verbose=-1).fit(x, y)
    path.parent.mkdir(parents=True, exist_ok=True)
    model.booster_.save_model(str(path))


def _tables(folder: Path, workload: str, scale: float) -> int:
    import numpy
    import polars

    files = max(2, round(W1_FILES * min(1.0, scale * 2)))
    rows = max(100, round(W1_ROWS * scale / files))
    for number in range(files):
        chance = numpy.random.default_rng(1000 + number)
        values = numpy.round(chance.standard_normal((rows, len(FEATURES))), 4)
        columns: dict[str, Any] = {"id": numpy.arange(number * rows, (number + 1) * rows)}
        columns.update({name: values[:, index] for index, name in enumerate(FEATURES)})
        frame = polars.DataFrame(columns)
        if workload == "w1_jsonl":
            frame.write_ndjson(folder / f"part-{number:04d}.jsonl")
        elif workload == "w1_csv":
            frame.write_csv(folder / f"part-{number:04d}.csv")
        else:
            frame.write_parquet(folder / f"part-{number:04d}.parquet", row_group_size=max(1, rows // 2))
    return files * rows


def _texts(folder: Path, _: str, scale: float) -> int:
    chance = random.Random(5)
    count = max(64, round(W2_TEXTS * scale))
    with (folder / "texts.jsonl").open("w") as file:
        for number in range(count):
            length = min(120, max(4, int(chance.lognormvariate(3.0, 0.6))))
            words = " ".join(chance.choice(_WORDS) for _ in range(length))
            file.write(f'{{"id":{number},"text":"{words}"}}\n')
    return count


def _pictures(folder: Path, _: str, scale: float) -> int:
    import numpy
    from PIL import Image

    chance = numpy.random.default_rng(3)
    count = max(100, round(W3_FILES * scale))
    for number in range(count):
        side = int(chance.integers(28, 84))
        pixels = chance.integers(0, 256, (side, side, 3), dtype=numpy.uint8)
        Image.fromarray(pixels).save(folder / f"img-{number:06d}.png", compress_level=1)
    return count


def _lines(folder: Path, _: str, scale: float) -> int:
    chance = random.Random(9)
    blob = " ".join(chance.choice(_WORDS) for _ in range(200_000))
    files = max(2, round(W4_FILES * min(1.0, scale * 2)))
    lines = max(100, round(W4_LINES * scale / files))
    for number in range(files):
        with (folder / f"part-{number:04d}.jsonl").open("w") as file:
            for line in range(number * lines, (number + 1) * lines):
                at = chance.randrange(len(blob) - 400)
                text = blob[at : at + chance.randrange(90, 190)]
                user, moment = chance.randrange(10**7), 1_700_000_000 + line
                file.write(f'{{"id":{line},"user":"u{user:07d}","ts":{moment},"text":"{text}"}}\n')
    return files * lines
