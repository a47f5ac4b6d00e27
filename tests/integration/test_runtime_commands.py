"""Commands over lines: real children, spoken to over pipes; what they do wrong is found, nothing of them is left."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from tests.integration.runtime_coordinator import Bench, Coordinator, pids_below, serve_socket, wait_until
from tidemill_runtime.contract import Channel, Command, InputFormat, Pins
from tidemill_runtime.faults import FatalError
from tidemill_runtime.models.loading import load_model

PYTHON = sys.executable

DOUBLING = """
    import json, os, signal, sys, time
    for number, line in enumerate(sys.stdin):
        record = json.loads(line)
        poison = record.get("poison")
        if poison == "exit": print("no way", file=sys.stderr); sys.exit(3)
        if poison == "segv": os.kill(os.getpid(), signal.SIGSEGV)
        if poison == "hang": time.sleep(3600)
        if poison == "silent": continue
        if poison == "twice": print(0, file=OUT)
        print(record["id"] * 2, file=OUT)
"""
FLUSHING = DOUBLING.replace("OUT", "sys.stdout")
BUFFERING = DOUBLING.replace("OUT", "out").replace("for number", "out = open(1, 'w')\n    for number")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def lines(run: list[str], **options: Any) -> Command:
    return Command(run, "lines", **options)


def script(bench: Bench, source: str) -> list[str]:
    (bench.root / "model/predict.py").write_text(textwrap.dedent(source))
    return [PYTHON, "predict.py"]


def ids(count: int, poison: dict[int, str] | None = None) -> bytes:
    records = [{"id": i, **({"poison": poison[i]} if poison and i in poison else {})} for i in range(count)]
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def check(done: Coordinator, count: int, faults: dict[int, str]) -> None:
    assert done.results()["a.jsonl"] == b"".join(b"null\n" if i in faults else b"%d\n" % (2 * i) for i in range(count))
    assert {row: record.fault for _, row, record in done.errors()} == faults


def test_a_filter_of_texts(bench: Bench) -> None:
    bench.file("a.txt", "eins\nzwei\n\n7\n{}\n")
    done = bench.run(bench.whole(), input=InputFormat("text"), command=lines(["tr", "a-z", "A-Z"]), model=None)
    assert done.results()["a.txt"] == b'"EINS"\n"ZWEI"\n7\n{}\n'
    assert "answers only when its input ends" in bench.log()


def test_one_process_does_it_all(bench: Bench) -> None:
    bench.file("a.jsonl", ids(20_000))
    source = "import os\nprint('started', file=__import__('sys').stderr)\n" + textwrap.dedent(FLUSHING)
    done = bench.run(bench.ranges(50_000), command=lines(script(bench, source)))
    check(done, 20_000, {})
    assert bench.log().count("started") == 1


def test_one_that_holds_its_output_back(bench: Bench) -> None:
    bench.file("a.jsonl", ids(20_000))
    done = bench.run(bench.ranges(50_000), command=lines(script(bench, BUFFERING)))
    check(done, 20_000, {})
    assert bench.log().count("answers only when its input ends") == 1


@pytest.mark.parametrize("kind", ["exit", "segv"])
@pytest.mark.parametrize("lifetime", ["run", "batch"])
def test_one_that_dies_of_records(bench: Bench, kind: str, lifetime: str) -> None:
    dice = random.Random(3)
    poison = dict.fromkeys([0, *dice.sample(range(3000), 3)], kind)
    bench.file("a.jsonl", ids(3000, poison))
    source = FLUSHING if lifetime == "run" else BUFFERING
    done = bench.run(bench.whole(), command=lines(script(bench, source), lifetime=lifetime))
    check(done, 3000, dict.fromkeys(poison, "crash"))
    first = done.errors()[0][2]
    if kind == "exit":
        assert (first.type, first.message) == ("CommandDied", "the command exited with status 3: no way")
        assert first.traceback == "no way"
    assert len({record.fingerprint for _, _, record in done.errors()}) == 1


def test_one_that_hangs_on_a_record(bench: Bench) -> None:
    bench.file("a.jsonl", ids(2000, {700: "hang"}))
    done = bench.run(bench.whole(), command=lines(script(bench, FLUSHING), lifetime="run"), record_timeout_s=0.5)
    check(done, 2000, {700: "timeout"})


@pytest.mark.parametrize(
    ("kind", "lifetime"), [("silent", "auto"), ("twice", "auto"), ("silent", "batch"), ("twice", "batch")]
)
def test_one_that_writes_too_much_or_too_little(bench: Bench, kind: str, lifetime: str) -> None:
    bench.file("a.jsonl", ids(300, {130: kind}))
    done = bench.run(bench.whole(), command=lines(script(bench, FLUSHING), lifetime=lifetime))
    check(done, 300, {130: "wrong_length"})


def test_a_late_line_too_many_is_never_another_records(bench: Bench) -> None:
    run = script(bench, "import time\nwhile True: input(); print(1); time.sleep(0.1); print(2)")
    manifest = bench.manifest(Channel("fd"), command=lines(run))
    model = load_model(manifest)
    try:
        assert model.call([{}]) == [1]
        stdout = model.call.__self__._stdout
        wait_until(lambda: select.select([stdout], [], [], 0)[0])
        with pytest.raises(FatalError, match="more lines than it was given"):
            model.call([{}])
        with pytest.raises(FatalError):
            model.call([{}])
    finally:
        model.close()


def test_large_records_pass_in_both_directions(bench: Bench) -> None:
    texts = [chr(97 + i % 26) * 300_000 for i in range(40)]
    bench.file("a.txt", "\n".join(texts))
    command = lines(["cat"])
    done = bench.run(bench.whole(), input=InputFormat("text"), command=command, model=None)
    assert done.results()["a.txt"] == b"".join(b'"%s"\n' % text.encode() for text in texts)


def test_what_it_says_on_the_side_is_in_the_log(bench: Bench) -> None:
    source = (
        "import sys\nfor line in sys.stdin:\n    print('noise ' * 1000, file=sys.stderr)\n    print(1, flush=True)\n"
    )
    bench.file("a.jsonl", ids(200))
    done = bench.run(bench.whole(), command=lines(script(bench, source)))
    assert done.results()["a.jsonl"] == b"1\n" * 200
    assert bench.log().count("noise") == 200_000


def test_one_that_ends_between_mini_batches_is_started_again(bench: Bench) -> None:
    source = """
        import sys
        for number, line in enumerate(sys.stdin):
            print(line, end="")
            if number == 84: break
    """
    bench.file("a.jsonl", ids(500))
    done = bench.run(bench.whole(), command=lines(script(bench, source)), pins=Pins(batch_size=85))
    assert done.results()["a.jsonl"] == ids(500).replace(b": ", b":")


@pytest.mark.parametrize(
    ("run", "kind", "words"),
    [
        (["no-such-command"], "model_not_found", "no-such-command"),
        (["./predict.py"], "model_not_found", "chmod +x"),
        ([PYTHON, "-c", "import no_such_module"], "model_load_failed", "no_such_module"),
        (["false"], "model_load_failed", "status 1"),
    ],
)
@pytest.mark.parametrize("lifetime", ["auto", "batch"])
def test_one_that_does_not_start(bench: Bench, run: list[str], kind: str, words: str, lifetime: str) -> None:
    script(bench, FLUSHING)
    bench.file("a.jsonl", ids(10))
    done = bench.run(bench.whole(), expect=3, command=lines(run, lifetime=lifetime))
    assert done.fault is not None
    assert done.fault.kind == kind
    assert words in done.fault.message


def test_a_slow_start_is_no_records_fault(bench: Bench) -> None:
    source = "import time\ntime.sleep(2)\n" + textwrap.dedent(FLUSHING)
    bench.file("a.jsonl", ids(100, {30: "exit"}))
    done = bench.run(bench.whole(), command=lines(script(bench, source)), record_timeout_s=0.5)
    check(done, 100, {30: "crash"})


def test_a_start_has_an_end(bench: Bench) -> None:
    bench.file("a.jsonl", ids(10))
    done = bench.run(bench.whole(), expect=3, command=lines(["sleep", "100"], load_timeout_s=0.5))
    assert done.fault is not None
    assert "read nothing" in done.fault.message


TREE = """
    import os, subprocess, sys, time
    sleeper = [sys.executable, "-c", "import time; time.sleep(1000)"]
    subprocess.Popen(sleeper)
    subprocess.Popen(sleeper, start_new_session=True)
    subprocess.run(["sh", "-c", "sleep 1000 & setsid sleep 1000 &"])
    for line in sys.stdin:
        if "die" in line: os._exit(7)
        time.sleep(0.01)
        print(line, end="", flush=True)
"""


def workers(agent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{agent}/task/{agent}/children").read_text().split()]


@pytest.mark.parametrize("end", ["success", "SIGKILL", "SIGTERM", "worker"])
def test_nothing_is_left_running(bench: Bench, end: str) -> None:
    bench.file("a.jsonl", ids(300 if end == "success" else 100_000))
    coordinator = bench.coordinator(bench.whole())
    below: set[int] = set()
    with bench.instance(coordinator, 60, command=lines(script(bench, TREE)), millicores=2000) as process:

        def look(report: Any) -> None:
            below.update(pids_below(process.pid))
            if report.pending.ok and end != "success":
                kill = signal.SIGTERM if end == "SIGTERM" else signal.SIGKILL
                for pid in workers(process.pid) if end == "worker" else [process.pid]:
                    os.kill(pid, kill)
                if end == "worker":
                    coordinator.directive = "stop"

        coordinator.on_report = look
        serve_socket(coordinator, process.channel, 60)  # type: ignore[attr-defined]
        process.wait(60)
    assert len(below) >= 7
    wait_until(lambda: not [pid for pid in below if os.path.exists(f"/proc/{pid}")])
