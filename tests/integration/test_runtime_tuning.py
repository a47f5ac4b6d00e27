"""An instance tunes itself, and nothing of that shows in what it writes."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from tests.integration.runtime_coordinator import Bench
from tidemill_runtime.contract import InputFormat, Manifest, Pins

TEXTS = """
    import json, os, time
    class Model:
        def load(self):
            self.calls = open({log!r}, "a")
        def predict(self, batch: list[dict]):
            texts = [record["text"] for record in batch]
            longest = max(map(len, texts))
            self.calls.write(json.dumps(list(map(len, texts))) + "\\n"); self.calls.flush()
            for text in texts:
                if text.endswith("!"): raise ValueError("too loud")
                if text.endswith("?"): os._exit(3)
            time.sleep(0.00001 * longest * len(texts))
            return [len(text) for text in texts]
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def texts(bench: Bench, ends: dict[int, str], count: int = 400) -> list[str]:
    dice = random.Random(3)
    made = ["x" * dice.randint(1, 200) + ends.get(number, "") for number in range(count)]
    bench.model(TEXTS.format(log=str(bench.root / "calls")))
    bench.file("a.jsonl", "".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(made)))
    return made


def calls(bench: Bench) -> list[list[int]]:
    return [json.loads(line) for line in (bench.root / "calls").read_text().splitlines()]


def test_texts_are_called_by_length_and_come_out_in_order(bench: Bench) -> None:
    made = texts(bench, {})
    done = bench.run(bench.whole())
    assert done.results()["a.jsonl"] == b"".join(b"%d\n" % len(text) for text in made)
    lengths = calls(bench)
    assert sorted(length for call in lengths for length in call) == sorted(map(len, made))
    padded = sum(max(call) * len(call) for call in lengths)
    assert padded < 1.3 * sum(map(len, made))  # as they come it would be 1.7 and more


def test_what_fails_in_a_window_is_named_by_its_true_place(bench: Bench) -> None:
    ends = {17: "!", 18: "!", 250: "!", 399: "!"}
    made = texts(bench, ends)
    done = bench.run(bench.whole())
    assert done.results()["a.jsonl"] == b"".join(
        b"null\n" if number in ends else b"%d\n" % len(text) for number, text in enumerate(made)
    )
    found = done.errors()
    assert [row for _, row, _ in found] == sorted(ends)
    assert [json.loads(record.input or "")["id"] for _, _, record in found] == sorted(ends)


def test_what_kills_in_a_window_is_found(bench: Bench) -> None:
    ends = {150: "?", 300: "?"}
    made = texts(bench, ends)
    done = bench.run(bench.whole())
    assert done.results()["a.jsonl"] == b"".join(
        b"null\n" if number in ends else b"%d\n" % len(text) for number, text in enumerate(made)
    )
    assert {row: record.fault for _, row, record in done.errors()} == dict.fromkeys(ends, "crash")
    assert bench.log().count("tidemill: worker") <= 2 * 4


def ids(count: int) -> str:
    return "".join(f'{{"id": {number}}}\n' for number in range(count))


DEVICE = """
    class OutOfMemoryError(RuntimeError): pass
    class Model:
        calls = 0
        def load(self): pass
        def predict(self, batch: list[dict]):
            if any(record["id"] == {heavy} for record in batch): raise OutOfMemoryError("it is too large")
            if len(batch) > {room}: raise RuntimeError({message!r})
            return [record["id"] for record in batch]
"""


@pytest.mark.parametrize(
    "message",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB (GPU 0; 15.78 GiB total capacity)",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buffer of size 161061",
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 17179869184 bytes.",
        "MPS backend out of memory (MPS allocated: 9.00 GB, max allowed: 9.07 GB)",
    ],
)
def test_a_full_device_halves_the_mini_batch(bench: Bench, message: str) -> None:
    bench.model(DEVICE.format(room=20, heavy=-1, message=message))
    bench.file("a.jsonl", ids(3000))
    done = bench.run(bench.whole())
    assert done.results()["a.jsonl"] == b"".join(b"%d\n" % number for number in range(3000))
    assert not done.errors()
    assert done.reports[-1].tuning["batch_size"] <= 20


def test_a_record_too_large_for_a_device_is_its_own_fault(bench: Bench) -> None:
    bench.model(DEVICE.format(room=10**9, heavy=1500, message=""))
    bench.file("a.jsonl", ids(50_000))
    done = bench.run(bench.whole())
    assert [(row, record.fault) for _, row, record in done.errors()] == [(1500, "out_of_memory")]
    assert done.counts().ok == 49_999
    assert done.reports[-1].tuning["batch_size"] > 100  # the others need not suffer for it


def test_a_pinned_size_is_kept_and_halved_only_for_memory(bench: Bench) -> None:
    bench.model(DEVICE.format(room=20, heavy=-1, message="out of memory"))
    bench.file("a.jsonl", ids(300))
    done = bench.run(bench.whole(), pins=Pins(batch_size=40))
    assert done.counts().ok == 300
    assert done.reports[-1].tuning["batch_size"] == 20
    assert done.reports[-1].tuning["batch_size_why"] == "pinned, but 40 ran out of memory"


SLOW = """
    import time
    class Model:
        def load(self): pass
        def predict(self, request):
            time.sleep(0.05)
            return request
"""


def test_with_a_slow_model_no_lease_waits_behind_another(bench: Bench) -> None:
    """Somebody else might be idle: a lease is asked for when a worker is, not before."""
    bench.model(SLOW)
    bench.file("a.txt", "".join(f"{number}\n" for number in range(60)))
    splits = bench.ranges(60)
    coordinator = bench.run(splits, millicores=2000, input=InputFormat("text"))
    assert coordinator.counts().ok == 60
    running = [report for report in coordinator.reports if report.state == "running"]
    assert len(running) > len(splits) / 2
    assert max(len(report.held) + report.want for report in running[1:]) <= 2


THREADED = """
    import os, time
    class Model:
        def load(self):
            self.threads = int(os.environ["OMP_NUM_THREADS"])
        def predict(self, batch: list[str]):
            time.sleep({seconds} * len(batch))
            return [int(text) for text in batch]
"""


class Hasty(Bench):
    """An instance that tries after tenths of a second what others try after a minute."""

    def start(
        self, manifest: Manifest, fd: int | None = None, environment: dict[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        path = self.root / "instance/manifest.json"
        path.write_bytes(msgspec.json.encode(manifest))
        code = (
            "import sys; from tidemill_runtime import agent, tuning;"
            "tuning.TRIAL_S, tuning.PAYS_AFTER, tuning._LOOK_EVERY_S = 0.2, 2, 0.05;"
            "sys.exit(agent.main(sys.argv[1:]))"
        )
        with (self.root / "instance/log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", code, str(path)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                pass_fds=() if fd is None else (fd,),
            )


@pytest.mark.parametrize(
    ("seconds", "processes", "threads"),
    [
        ("(0.0002 if self.threads > 1 else 0.002)", 1, 2),  # threads are worth more than processes
        ("0.001", 2, 1),  # this model has no use for threads
    ],
)
def test_one_worker_with_all_cores_is_tried(tmp_path: Path, seconds: str, processes: int, threads: int) -> None:
    bench = Hasty(tmp_path).model(THREADED.format(seconds=seconds))
    bench.file("a.txt", "".join(f"{number}\n" for number in range(16_000)))
    pins = Pins(10)  # calls much shorter than the trial
    done = bench.run(bench.ranges(1000), millicores=2000, input=InputFormat("text"), pins=pins)
    assert done.results()["a.txt"] == b"".join(b"%d\n" % number for number in range(16_000))
    tuning = done.reports[-1].tuning
    assert (tuning["processes"], tuning["threads"]) == (processes, threads), bench.log()
    assert tuning["processes_why"].startswith("measured: ")
    assert (tuning["keep"]["processes"], tuning["keep"]["threads"]) == (processes, threads)


def test_a_trial_that_runs_dry_ends(tmp_path: Path) -> None:
    """The others hold all that is left, and stand still while one is tried: they go on at once."""
    bench = Hasty(tmp_path).model(THREADED.format(seconds="0.001"))
    bench.file("a.txt", "".join(f"{number}\n" for number in range(4000)))
    started = time.monotonic()
    done = bench.run(bench.ranges(9500), millicores=2000, input=InputFormat("text"), pins=Pins(10))
    assert done.results()["a.txt"] == b"".join(b"%d\n" % number for number in range(4000))
    assert "trying one worker" in bench.log()
    assert time.monotonic() - started < 15  # not the patience of a trial


def test_what_an_earlier_run_found_is_where_the_next_begins(bench: Bench) -> None:
    bench.model(THREADED.format(seconds="0.00001"))
    bench.file("a.txt", "".join(f"{number}\n" for number in range(20_000)))
    first = bench.run(bench.whole(), millicores=2000, input=InputFormat("text")).reports[-1].tuning
    hints = {first["machine"]: Pins(512, 1, 2), "another machine": Pins(1, 1, 1)}
    second = bench.run(bench.whole(), millicores=2000, input=InputFormat("text"), hints=hints).reports[-1].tuning
    assert (second["processes"], second["threads"]) == (1, 2)
    assert second["processes_why"] == "as an earlier run with this model ended here"
    pinned = (
        bench.run(bench.whole(), millicores=2000, input=InputFormat("text"), hints=hints, pins=Pins(100, 2, 1))
        .reports[-1]
        .tuning
    )
    assert (pinned["batch_size"], pinned["processes"], pinned["threads"]) == (100, 2, 1)
    assert not pinned["keep"]


LARGE = """
    import os, time
    class Model:
        def load(self):
            self.weights = []
            for _ in range(16):  # as from a disk: it is seen while it grows
                self.weights.append(b"x" * (25 << 20))
                time.sleep(0.1)
        def predict(self, batch: list[str]):
            time.sleep(0.001 * len(batch))
            return [os.environ["OMP_NUM_THREADS"]] * len(batch)
"""


def test_a_large_model_loads_alone_and_gets_all_cores(bench: Bench) -> None:
    bench.model(LARGE)
    bench.file("a.txt", "".join(f"{number}\n" for number in range(3000)))
    done = bench.run(bench.ranges(3000), millicores=2000, memory_bytes=800 << 20, input=InputFormat("text"))
    assert done.counts().ok == 3000
    tuning = done.reports[-1].tuning
    assert (tuning["processes"], tuning["threads"]) == (1, 2), bench.log()
    assert "more would not fit" in tuning["processes_why"]
    assert max(report.memory_bytes for report in done.reports) < 800 << 20
    assert "died" not in bench.log()
    assert done.results()["a.txt"].endswith(b'"2"\n')  # a worker with both cores has taken over
