"""One record alone: `python -m tidemill_runtime.replay REQUEST ANSWER_FD`, which `tidemill replay` starts.

Reads with the run's own readers, calls the model through the run's own isolation and writes with its encoder, so that
what comes out is what a worker would have made of the record in a mini-batch of its own.

REQUEST is a JSON file: {"manifest", "lease" (the whole object that the record is in), "row" (from 0), "pdb"}. Answers
are JSON lines on the descriptor: {"event": "loaded"}, {"event": "predicting"}, and last {"event": "answer", …}.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import importlib
import json
import os
import pdb  # noqa: T100 - what --pdb is for
import sys
import time
import traceback
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Optional

from tidemill_runtime import wire
from tidemill_runtime.batching import BatchSizer
from tidemill_runtime.board import Board
from tidemill_runtime.codec.records import Records
from tidemill_runtime.encoder import JsonEncoder, carried, make_encoder
from tidemill_runtime.faults import FatalError
from tidemill_runtime.isolation import Isolator, Piece
from tidemill_runtime.memory import family
from tidemill_runtime.models.loading import load_model
from tidemill_runtime.models.port import Model
from tidemill_runtime.process import die_with_parent
from tidemill_runtime.reading import open_reader
from tidemill_runtime.sink import error_record
from tidemill_runtime.suspicion import Failure, Place

Answer = dict[str, Any]


def main(arguments: list[str]) -> int:
    """Exit status 0 once the answer was written, whatever it says."""
    die_with_parent(os.getppid())
    with open(arguments[0], "rb") as file:
        request = json.load(file)
    with os.fdopen(int(arguments[1]), "wb", buffering=0) as answers:
        replay = _Replay(request, answers)
        try:
            answer = replay.run()
        except FatalError as error:
            replay.debug(error.__cause__)
            answer = {"state": "fault", "fault": error.fault()}
        answers.write(wire.dumps({"event": "answer", **answer, "memory_bytes": _peak_bytes(), **replay.seconds}))
    return 0


class _Replay:
    def __init__(self, request: dict[str, Any], answers: Any) -> None:
        self._manifest = wire.parse_manifest(json.dumps(request["manifest"]).encode())
        self._lease = wire.read_lease(request["lease"])
        self._row: int = request["row"]
        self._pdb: bool = request["pdb"]
        self._answers = answers
        self._raised: Optional[BaseException] = None
        self.seconds: dict[str, float] = {}

    def run(self) -> Answer:
        os.environ.update(self._manifest.env)
        with self._timed("load_s"):
            model = load_model(self._manifest)
        self._tell("loaded")
        result = self._manifest.result
        reader = open_reader(
            self._lease, self._manifest.input, self._manifest.scratch, {}, model.shape, carried(result)
        )
        seen = skipped = 0
        try:
            for records in reader.blocks():
                row = self._row - seen
                if row < records.rows:
                    skipped += _blank(records, row)
                    answer = self._one(model, records, row)
                    reader.check()
                    return {**answer, "skipped": skipped}
                seen += records.rows
                skipped += _blank(records, records.rows)
        finally:
            reader.close()
            model.close()
        return {"state": "past_end", "rows": seen}

    def debug(self, error: Optional[BaseException]) -> None:
        """Opens pdb where it was raised, if that was asked for."""
        if not self._pdb:
            return
        if error is None or error.__traceback__ is None:
            sys.stdout.write("The model raised nothing that pdb could look into.\n")
            return
        sys.stdout.write("".join(traceback.format_exception_only(type(error), error)))
        pdb.post_mortem(error.__traceback__)

    def _one(self, model: Model, records: Records, row: int) -> Answer:
        bad = records.bad.get(row)
        if bad is not None:
            raw = bad.raw if bad.raw is not None else records.raw(row)
            return self._failed(Failure(bad.fault, bad.type, bad.message, "", 0), raw)
        item = _item(records, row)
        if item is None:
            return {"state": "blank"}
        raw = records.raw(row)  # before the model has it
        model.call = self._watched(model.call)
        isolator = Isolator(model, Board(), BatchSizer(1), None)
        self._tell("predicting")
        with self._timed("predict_s"):
            outcome = isolator.run(records, Place(records.object, records.begin, records.end, 0), item, item + 1)
        if outcome.failed:
            answer = self._failed(outcome.failed[item], raw)
            self.debug(self._raised)
            return answer
        try:
            piece = outcome.pieces[0]
            written = make_encoder(self._manifest.result, self._lease.objects).rows(records, piece, item, item + 1)
            prediction = self._value(written, records, piece, item)
        except FatalError:
            raise
        except Exception as error:
            answer = self._failed(Failure("encode_error", type(error).__name__, str(error), "", 1), raw)
            self.debug(error)
            return answer
        return {"state": "predicted", "prediction": prediction, **_input(raw)}

    def _value(self, written: bytes, records: Records, piece: Piece, item: int) -> Any:
        """The prediction as JSON has it; of a file its size and digest."""
        if self._manifest.result.type == "text":
            return written.decode()[:-1]
        if self._manifest.result.type == "file":
            data = written.partition(b"\n")[2]
            return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        bare: Any = SimpleNamespace(form="aligned", keys=[])
        return json.loads(JsonEncoder(bare, self._lease.objects).rows(records, piece, item, item + 1))

    def _failed(self, failure: Failure, raw: bytes) -> Answer:
        record = error_record(0, self._row, failure, raw)
        whole = {"message": failure.message, "traceback": failure.traceback}
        return {"state": "failed", "failure": {**record, **whole}, **_input(raw)}

    def _watched(self, call: Any) -> Any:
        def watched(batch: Any) -> Any:
            try:
                return call(batch)
            except BaseException as error:
                self._raised = error
                raise

        return watched

    def _tell(self, event: str) -> None:
        self._answers.write(wire.dumps({"event": event}))

    @contextlib.contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = time.monotonic() - started


def _item(records: Records, row: int) -> Optional[int]:
    """The number of the item in a row, None for a blank line."""
    rows = records.item_rows
    if rows is None:
        return row
    item = bisect.bisect_left(rows, row)
    return item if item < len(rows) and rows[item] == row else None


def _blank(records: Records, stop: int) -> int:
    """How many of the first `stop` rows are blank lines: neither records nor what cannot be read."""
    rows = records.item_rows
    if rows is None:
        return 0
    return stop - bisect.bisect_left(rows, stop) - sum(row < stop for row in records.bad)


def _input(raw: bytes) -> Answer:
    shown = error_record(0, 0, Failure("", "", "", "", 0), raw)
    return {key: shown[key] for key in ("input", "input_truncated", "input_base64")}


def _peak_bytes() -> int:
    """The most that this process, and those that it has started and that are still there, had in memory."""
    total = 0
    for pid in family(os.getpid()):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/status", "rb") as file:
            total += sum(int(line.split()[1]) * 1024 for line in file if line.startswith(b"VmHWM:"))
    return total


if __name__ == "__main__":
    # By its own name, as tracebacks leave out modules of ours by their names.
    sys.exit(importlib.import_module("tidemill_runtime.replay").main(sys.argv[1:]))
