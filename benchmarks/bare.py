"""The yardstick: the best loop that a person would write by hand for each workload, with nothing but speed in mind.

`python -m benchmarks.bare WORKLOAD INPUT OUTPUT MODEL`: two processes, each reading its own files and writing its own
output; no order between files, no per-record errors, no checkpoints, no receipt. The readers and writers are those
that were fastest among json, orjson, msgspec, simdjson, pyarrow, pandas and polars.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.data import FEATURES

PROCESSES = 2
_ROWS = 16_384
_LINES = 4_096
_FILES = 250
_TEXTS = 32


class Loop:
    """One workload over one input; methods run in the pool's processes."""

    def __init__(self, source: Path, target: Path, model: Path) -> None:
        self.source = source
        self.target = target
        self.model = model
        self.loaded: Any = None

    def tabular(self, path: Path) -> int:
        import polars

        schema = {"id": polars.Int64, **dict.fromkeys(FEATURES, polars.Float64)}
        frame = polars.read_ndjson(path, schema=schema) if path.suffix == ".jsonl" else polars.read_csv(path)
        with (self.target / f"{path.name}.out").open("wb", buffering=1 << 20) as out:
            for start in range(0, len(frame), _ROWS):
                piece = frame[start : start + _ROWS]
                scores = self._trees(piece.drop("id").to_numpy())
                polars.DataFrame({"id": piece["id"], "p": scores}).write_ndjson(out)
        return len(frame)

    def parquet(self, path: Path) -> int:
        import numpy
        import pyarrow
        import pyarrow.parquet

        schema = pyarrow.schema([("id", pyarrow.int64()), ("p", pyarrow.float64())])
        rows = 0
        with pyarrow.parquet.ParquetWriter(self.target / f"{path.name}.out", schema) as out:
            for batch in pyarrow.parquet.ParquetFile(path).iter_batches(_ROWS, use_threads=False):
                values = numpy.column_stack([batch.column(name).to_numpy() for name in FEATURES])
                scores = pyarrow.array(self._trees(values))
                out.write_batch(pyarrow.record_batch([batch.column("id"), scores], schema=schema))
                rows += len(batch)
        return rows

    def lines(self, path: Path) -> int:
        import msgspec

        record: Any = msgspec.defstruct("record", [("id", int), ("text", str)], gc=False)
        result: Any = msgspec.defstruct("result", [("id", int), ("len", int)], gc=False)
        decode: Any = msgspec.json.Decoder(record).decode
        encode = msgspec.json.Encoder().encode_lines
        count = 0
        with path.open("rb", buffering=1 << 20) as file, (self.target / f"{path.name}.out").open("wb") as out:
            while read := list(islice(file, _LINES)):
                records = [decode(line) for line in read]
                lengths = [len(one.text) for one in records]
                out.write(encode([result(one.id, length) for one, length in zip(records, lengths, strict=True)]))
                count += len(records)
        return count

    def pictures(self, paths: list[Path]) -> bytes:
        import io

        import numpy
        import orjson
        from PIL import Image

        out = []
        for path in paths:
            with path.open("rb", buffering=0) as file:
                data = file.read()
            mean = numpy.asarray(Image.open(io.BytesIO(data))).mean((0, 1)).round(3).tolist()
            out.append(orjson.dumps({"path": path.name, "prediction": mean}))
        return b"\n".join(out) + b"\n"

    def sizes(self, paths: list[Path]) -> bytes:
        import orjson

        out = []
        for path in paths:
            with path.open("rb", buffering=0) as file:
                out.append(orjson.dumps({"path": str(path.relative_to(self.source)), "prediction": len(file.read())}))
        return b"\n".join(out) + b"\n"

    def texts(self, rows: list[dict[str, Any]]) -> bytes:
        import orjson

        if self.loaded is None:
            sys.path.insert(0, str(self.model))
            self.loaded = importlib.import_module("model_service").EmbeddingModel(str(self.model))
            self.loaded.load()
        vectors = self.loaded.embed([row["text"] for row in rows])
        return b"".join(
            orjson.dumps({"id": row["id"], "p": vector}, option=orjson.OPT_SERIALIZE_NUMPY) + b"\n"
            for row, vector in zip(rows, vectors, strict=True)
        )

    def _trees(self, values: Any) -> Any:
        if self.loaded is None:
            import lightgbm

            self.loaded = lightgbm.Booster(model_file=str(self.model / "model.txt"))
        return self.loaded.predict(values, num_threads=1)


def main(workload: str, source: Path, target: Path, model: Path) -> int:
    os.environ["POLARS_MAX_THREADS"] = "1"
    target.mkdir(parents=True, exist_ok=True)
    loop = Loop(source, target, model)
    paths = sorted(Path(entry.path) for entry in os.scandir(source))
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        if workload == "tiny":
            found = sorted(path for path in source.rglob("*") if path.is_file())
            chunks = [found[start : start + _FILES] for start in range(0, len(found), _FILES)]
            return _gathered(pool.imap_unordered(loop.sizes, chunks), target)
        if workload == "w3":
            chunks = [paths[start : start + _FILES] for start in range(0, len(paths), _FILES)]
            return _gathered(pool.imap_unordered(loop.pictures, chunks), target)
        if workload == "w2":
            import json

            rows = sorted(map(json.loads, paths[0].open()), key=lambda row: -len(row["text"]))
            groups = [rows[start : start + _TEXTS] for start in range(0, len(rows), _TEXTS)]
            return _gathered(pool.imap_unordered(loop.texts, groups), target)
        each: dict[str, Callable[[Path], int]] = {"w4": loop.lines, "w1_parquet": loop.parquet}
        return sum(pool.imap_unordered(each.get(workload, loop.tabular), paths))


def _gathered(pieces: Any, target: Path) -> int:
    count = 0
    with (target / "out.jsonl").open("wb", buffering=1 << 20) as file:
        for piece in pieces:
            file.write(piece)
            count += piece.count(b"\n")
    return count


if __name__ == "__main__":
    print("records", main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])))
