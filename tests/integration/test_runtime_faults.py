"""A bad record never kills a batch: each kind of fault is injected, and everything else comes out once and in order."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.integration.runtime_coordinator import Bench, Coordinator
from tidemill_runtime.contract import InputFormat, Pins, ResultFormat

POISONED = """
    import ctypes, os, sys, time
    class Model:
        def load(self):
            self.hoard = []
        def predict(self, batch: list[dict]):
            for record in batch:
                poison = record.get("poison")
                if poison == "raise": raise ValueError("cannot digest 7")
                if poison == "exit": os._exit(3)
                if poison == "sys_exit": sys.exit(4)
                if poison == "segv": ctypes.string_at(0)
                if poison == "hang": time.sleep(3600)
                if poison == "memory":
                    self.hoard.append(b"x" * (1 << 30)); time.sleep(3600)
            if any(record.get("poison") == "short" for record in batch): return [0]* (len(batch) - 1)
            if any(record.get("poison") == "object" for record in batch):
                return [object() if r.get("poison") == "object" else r["id"] for r in batch]
            return [record["id"] for record in batch]
"""


LARGE = """
import time
class Model:
    def load(self):
        self.weights = b"x" * (400 << 20)
        time.sleep(9)
    def predict(self, request): return 1
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def poisoned(count: int, poison: dict[int, str]) -> bytes:
    records = [{"id": i, **({"poison": poison[i]} if i in poison else {})} for i in range(count)]
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def check(done: Coordinator, count: int, poison: dict[int, str], faults: dict[str, str]) -> None:
    """Exactly the poisoned records are errors, of the right kind; all else is there once, in order."""
    result = done.results()["a.jsonl"]
    assert result == b"".join(b"null\n" if i in poison else b"%d\n" % i for i in range(count))
    found = {row: record.fault for _, row, record in done.errors()}
    assert found == {row: faults[kind] for row, kind in poison.items()}
    assert (done.counts().ok, done.counts().failed) == (count - len(poison), len(poison))
    for _, row, record in done.errors():
        assert record.input is not None
        assert json.loads(record.input)["id"] == row


RAISED = {"raise": "model_error", "short": "wrong_length", "object": "encode_error", "sys_exit": "model_error"}


def test_exceptions_are_bisected(bench: Bench) -> None:
    dice = random.Random(5)
    poison = {row: dice.choice(sorted(RAISED)) for row in dice.sample(range(20_000), 40)}
    bench.model(POISONED).file("a.jsonl", poisoned(20_000, poison))
    done = bench.run(bench.ranges(60_000))
    check(done, 20_000, poison, RAISED)
    raised = next(record for _, row, record in done.errors() if record.type == "ValueError")
    assert "cannot digest" in raised.traceback
    assert "tidemill_runtime" not in raised.traceback
    assert raised.attempts > 1
    assert {record.traceback for _, _, record in done.errors() if record.type == "WrongLength"} == {""}
    assert len({record.fingerprint for _, _, record in done.errors() if record.type == "ValueError"}) == 1


@pytest.mark.parametrize(
    ("kind", "fault", "options"),
    [
        ("exit", "crash", {}),
        ("segv", "crash", {}),
        ("hang", "timeout", {"record_timeout_s": 0.3}),
        ("memory", "out_of_memory", {"memory_bytes": 400 * 1024 * 1024}),
    ],
)
def test_what_kills_a_worker(bench: Bench, kind: str, fault: str, options: dict[str, object]) -> None:
    poison = {700: kind} if kind == "memory" else {700: kind, 2100: kind}
    bench.model(POISONED).file("a.jsonl", poisoned(3000, poison))
    done = bench.run(bench.ranges(20_000), **options)
    check(done, 3000, poison, {kind: fault})
    # The worker dies in the mini-batch, in a step of it, and in the record; not once for each halving.
    assert bench.log().count("tidemill: worker") <= 2 * 5


def test_a_first_record_that_crashes_each_worker(bench: Bench) -> None:
    poison = {0: "exit", 1: "exit", 2999: "exit"}
    bench.model(POISONED).file("a.jsonl", poisoned(3000, poison))
    check(bench.run(bench.whole(), millicores=2000), 3000, poison, {"exit": "crash"})


def test_one_record_at_a_time(bench: Bench) -> None:
    bench.model("""
        import os
        class Model:
            def __init__(self, model_dir): self.model_dir = model_dir
            def load(self): return True
            def preprocess(self, request): return request["id"]
            def predict(self, request):
                if request == 5: raise KeyError("five")
                if request == 900: os._exit(1)
                return {"n": request}
            def postprocess(self, response): return response["n"]
    """).file("a.jsonl", poisoned(1000, {}))
    done = bench.run(bench.whole())
    check_rows = {row: record.fault for _, row, record in done.errors()}
    assert check_rows == {5: "model_error", 900: "crash"}
    assert done.results()["a.jsonl"] == b"".join(b"null\n" if i in (5, 900) else b"%d\n" % i for i in range(1000))


def test_lines_that_are_no_records(bench: Bench) -> None:
    data = (
        b'\xef\xbb\xbf{"id": 0}\r\n\r\n{"id": \n{"id": "\xff\xfe"}\n   \n'
        b'{"id": "' + b"y" * 5000 + b'"}\n{"id": 6}\n{"id": 7}'
    )
    bench.model(POISONED).file("a.jsonl", data)
    done = bench.run(bench.whole(), input=InputFormat("jsonl", max_record_bytes=1000))
    assert done.results()["a.jsonl"] == b"0\nnull\nnull\nnull\n6\n7\n"
    found = [(row, record.fault) for _, row, record in done.errors()]
    assert found == [(2, "decode_error"), (3, "decode_error"), (5, "too_long")]
    by_row = {row: record for _, row, record in done.errors()}
    assert by_row[3].input_base64
    assert by_row[5].input_truncated
    counts = done.counts()
    assert (counts.inputs, counts.ok, counts.failed, counts.skipped) == (8, 3, 3, 2)


def test_an_over_long_line_is_not_held(bench: Bench) -> None:
    data = b'{"id": 1}\n{"id": "' + b"y" * (64 << 20) + b'"}\n{"id": 3}\n'
    bench.model(POISONED).file("a.jsonl", data)
    options = {"input": InputFormat("jsonl", max_record_bytes=1 << 20), "memory_bytes": 90 << 20}
    whole = bench.run(bench.whole(), **options)
    assert whole.results()["a.jsonl"] == b"1\nnull\n3\n"
    assert [(row, record.fault) for _, row, record in whole.errors()] == [(1, "too_long")]


def test_a_model_that_always_fails_is_not_bisected_for_ever(bench: Bench) -> None:
    bench.model("""
        class Model:
            calls = 0
            def load(self): pass
            def predict(self, batch: list[dict]):
                Model.calls += 1
                print("calls", Model.calls)
                raise RuntimeError("always")
    """).file("a.jsonl", poisoned(20_000, {}))
    done = bench.run(bench.whole())
    assert done.counts().failed == 20_000
    assert bench.log().count("calls") < 1500


def test_memory_short_for_two_workers(bench: Bench) -> None:
    """The model fits once and not twice: one worker does it all."""
    bench.model("""
        class Model:
            def load(self): self.weights = bytearray(b"x") * (300 << 20)
            def predict(self, batch: list[dict]): return [r["id"] for r in batch]
    """).file("a.jsonl", poisoned(3000, {}))
    done = bench.run(bench.ranges(10_000), millicores=2000, memory_bytes=450 << 20)
    check(done, 3000, {}, {})


def test_mini_batches_shrink_before_a_record_is_blamed(bench: Bench) -> None:
    bench.model("""
        import time
        class Model:
            def load(self): pass
            def predict(self, batch: list[dict]):
                work = bytearray(b"x" * (len(batch) * (2 << 20)))
                if len(work) > 300 << 20: time.sleep(2)
                return [r["id"] for r in batch]
    """).file("a.jsonl", poisoned(600, {}))
    done = bench.run(bench.whole(), memory_bytes=400 << 20)
    check(done, 600, {}, {})


@pytest.mark.parametrize(
    ("source", "kind", "words"),
    [
        (
            "import no_such_module_here\nclass Model:\n    def load(self): 1\n    def predict(self, r): 1",
            "missing_module",
            "no_such_module_here",
        ),
        (
            "class Model:\n    def load(self): return False\n    def predict(self, r): return r",
            "model_load_failed",
            "False",
        ),
        ("class Model:\n    def load(self): 1/0\n    def predict(self, r): return r", "model_load_failed", "division"),
        ("def f(:\n", "model_not_found", "line 1"),
        ("class Other:\n    def run(self): pass", "model_not_found", "Other"),
        (
            "import sys\nsys.exit(3)\nclass Model:\n    def load(self): 1\n    def predict(self, r): 1",
            "model_load_failed",
            "SystemExit",
        ),
        (
            "import os\nclass Model:\n    def load(self): os._exit(9)\n    def predict(self, r): 1",
            "model_load_failed",
            "status 9",
        ),
        (
            LARGE,
            "out_of_memory",
            "memory",
        ),
    ],
)
def test_models_that_do_not_load(bench: Bench, source: str, kind: str, words: str) -> None:
    (bench.root / "model/batch/model_service.py").write_text(source)
    bench.file("a.jsonl", poisoned(10, {}))
    done = bench.run(bench.whole(), expect=3, memory_bytes=200 << 20)
    assert done.fault is not None
    assert done.fault.kind == kind
    assert words in done.fault.message
    assert bench.exit()["fault"]["kind"] == kind
    assert not any(report.state == "running" for report in done.reports)


def test_a_failed_record_leaves_its_line_in_joined_results(bench: Bench) -> None:
    bench.model(POISONED).file("a.jsonl", poisoned(4, {2: "raise"}))
    done = bench.run(bench.whole(), result=ResultFormat(form="joined"), pins=Pins(batch_size=2))
    assert [json.loads(line) for line in done.results()["a.jsonl"].splitlines()] == [
        {"id": 0, "prediction": 0},
        {"id": 1, "prediction": 1},
        None,
        {"id": 3, "prediction": 3},
    ]
