"""Shapes of data that need care: tiny files, one large one, small and large records, a slow model, a store far away.

Each is `tidemill run` from exec to exit against the same work done otherwise, by turns, as a ratio.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks import data, delay, measure
from benchmarks.report import Measured, progress

TINY_FILES = 200_000
LARGE_BYTES = 5_000_000_000
RECORDS_BYTES = 1_000_000_000
SLOW_RECORDS, SLOW_S = 60, 1.0
LATENCY_S = 0.020
S3_ROWS = 500_000
SHAPES = ("tiny", "large", "1kb", "1mb", "slow", "s3")
_MODELS = Path(__file__).parent / "models"
_S3 = "TIDEMILL_TEST_S3"


def run(folder: Path, shapes: Sequence[str], scale: float, rounds: int) -> list[Measured]:
    measured: list[Measured] = []
    for shape in shapes:
        progress(f"{shape} …")
        measured += _MAKERS[shape](folder / "shapes", scale, rounds)
    return measured


def _tiny(folder: Path, scale: float, rounds: int) -> list[Measured]:
    """200,000 files of 100 bytes, each a record, against a loop in two processes that reads each of them."""
    count = max(500, round(TINY_FILES * scale))
    source = folder / f"tiny-{count}"
    if not source.exists():
        for number in range(count):
            path = source / f"{number // 1000:04d}" / f"{number:06d}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"%0100d" % number)
    task = _task(folder, _MODELS / "size", source, {"type": "file"})
    bare = _bare("tiny", source, folder)
    ours, theirs = _by_turns(rounds, _product(task), bare)
    note = f"{ours / count * 1e6:.0f} µs a file, {theirs / count * 1e6:.0f} in the loop; {count:,} files"
    return [Measured("tiny files to bare loop", ours / theirs, "times", note=note)]


def _large(folder: Path, scale: float, rounds: int) -> list[Measured]:
    """One file of 5 GB, against the same lines in 20 files."""
    size = max(2_000_000, round(LARGE_BYTES * scale))
    one, many = folder / f"one-{size}", folder / f"many-{size}"
    if not one.exists():
        _write_lines([one / "all.jsonl"], size, 200)
        _write_lines([many / f"part-{number:02d}.jsonl" for number in range(20)], size, 200)
    tasks = [_task(folder, _MODELS / "w4", source, {}, output=source.name) for source in (one, many)]
    ours, theirs = _by_turns(rounds, *map(_product, tasks))
    note = f"{ours:.2f} s / {theirs:.2f} s, {size / 1e9:.2g} GB"
    return [Measured("one large file to twenty of the same", ours / theirs, "times", 1.05, note=note)]


def _records(record_bytes: int) -> Callable[[Path, float, int], list[Measured]]:
    def records(folder: Path, scale: float, rounds: int) -> list[Measured]:
        size = max(20 * record_bytes, round(RECORDS_BYTES * scale))
        source = folder / f"records-{record_bytes}-{size}"
        if not source.exists():
            _write_lines([source / f"part-{number}.jsonl" for number in range(8)], size, record_bytes)
        task = _task(folder, _MODELS / "w4", source, {})
        bare = [sys.executable, "-m", "benchmarks.bare", "w4", str(source), str(folder / "bare"), str(_MODELS / "w4")]
        ours, theirs = _by_turns(rounds, _product(task), _Command(bare, folder / "bare"))
        note = f"{size / ours / 1e6:.0f} MB/s, {size / theirs / 1e6:.0f} in the loop; {size / 1e6:.0f} MB"
        name = f"records of {record_bytes / 1000:.0f} KB to bare loop"
        return [Measured(name, ours / theirs, "times", 1.05, note=note)]

    return records


def _slow(folder: Path, scale: float, _: int) -> list[Measured]:
    """A model that takes 1 s a record: no worker may be idle while another has records left."""
    source = folder / "slow"
    count = max(20, round(SLOW_RECORDS * min(1.0, scale * 10)))
    shutil.rmtree(source, ignore_errors=True)
    _write_lines([source / "all.jsonl"], count * 200, 200)
    task = _task(folder, _MODELS / "slow", source, {}, env={"BENCHMARK_RECORD_S": str(SLOW_S)})
    took = _product(task)({}).wall_s
    records = sum(1 for _ in (source / "all.jsonl").open("rb"))
    ideal = SLOW_S * -(-records // len(os.sched_getaffinity(0)))
    note = f"{took:.1f} s for {records} records of {SLOW_S:g} s by {len(os.sched_getaffinity(0))} processes"
    return [Measured("slow model to the shortest time there is", took / ideal, "times", 1.1, note=note)]


def _s3(folder: Path, scale: float, rounds: int) -> list[Measured]:
    """W1 from and to a store at 20 ms, against local folders."""
    endpoint = os.environ.get(_S3)
    if not endpoint:
        progress(f"s3 is left out: {_S3} is not set (dev/with-servers minio -- python -m benchmarks shapes)")
        return []
    from minio import Minio  # a client by other hands, to put the input there

    source, rows = data.make(folder, "w1_jsonl", scale * S3_ROWS / data.W1_ROWS)
    model = folder / "models" / "w1"
    shutil.copytree(_MODELS / "w1", model, dirs_exist_ok=True)
    data.make_tree_model(model / "model.txt")
    form = {"columns": data.FEATURES, "result": {"keys": ["id"]}}
    local = _task(folder, model, source, form, output="s3-local")
    key, secret = os.environ[f"{_S3}_KEY"], os.environ[f"{_S3}_SECRET"]
    parts = urlsplit(endpoint)
    client = Minio(parts.netloc, key, secret, secure=False, region="us-east-1")
    bucket = f"bench-{random.randrange(10**9):09d}"
    client.make_bucket(bucket)
    for path in sorted(source.iterdir()):
        client.fput_object(bucket, f"in/{path.name}", str(path))
    assert parts.hostname is not None
    assert parts.port is not None
    with delay.serve(parts.hostname, parts.port, LATENCY_S / 2) as port:
        task = _task(folder, model, f"s3://{bucket}/in/", form, target=f"s3://{bucket}/out/", replace=True)
        far = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ACCESS_KEY_ID": key,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }
        ours, theirs = _by_turns(rounds, _product(task, far), _product(local))
    note = f"{ours:.2f} s / {theirs:.2f} s, {rows:,} rows, {LATENCY_S * 1000:.0f} ms a round trip"
    return [Measured("W1 at a store 20 ms away, share of local speed", theirs / ours, "", 0.9, higher=True, note=note)]


_MAKERS: dict[str, Callable[[Path, float, int], list[Measured]]] = {
    "tiny": _tiny,
    "large": _large,
    "1kb": _records(1_000),
    "1mb": _records(1_000_000),
    "slow": _slow,
    "s3": _s3,
}


class _Command:
    """What one side of a comparison runs; its output folder is emptied before."""

    def __init__(self, command: list[str], output: Path | None, env: Mapping[str, str] | None = None) -> None:
        self._command = command
        self._output = output
        self._env = dict(env or {})

    def __call__(self, more: Mapping[str, str]) -> measure.Cost:
        if self._output is not None:
            shutil.rmtree(self._output, ignore_errors=True)
        cost = measure.run(self._command, memory=False, env={**self._env, **more})
        if cost.returncode != 0:
            raise SystemExit(f"{' '.join(self._command)}: exit status {cost.returncode}\n{cost.output[-4000:]}")
        return cost


def _product(task: Path, env: Mapping[str, str] | None = None) -> _Command:
    target = json.loads(task.read_text())["output"]["path"]
    command = [str(Path(sys.executable).parent / "tidemill"), "run", "--json", str(task)]
    return _Command(command, None if "://" in target else Path(target), env)


def _bare(workload: str, source: Path, folder: Path) -> _Command:
    target = folder / "bare"
    return _Command([sys.executable, "-m", "benchmarks.bare", workload, str(source), str(target), "-"], target)


def _by_turns(rounds: int, ours: _Command, theirs: _Command) -> tuple[float, float]:
    """Medians of both wall times, in seconds; the first turn does not count."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(rounds + 1):
        for one, command in zip(times, (ours, theirs), strict=True):
            took = command({}).wall_s
            if turn:
                one.append(took)
        if turn:
            progress(f"  {times[0][-1]:.2f} s / {times[1][-1]:.2f} s")
    return statistics.median(times[0]), statistics.median(times[1])


def _task(
    folder: Path,
    model: Path,
    source: Path | str,
    form: Mapping[str, Any],
    *,
    output: str = "product",
    target: str | None = None,
    replace: bool = False,
    env: Mapping[str, str] | None = None,
) -> Path:
    """A task file; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"task-{output if target is None else 's3'}.json"
    task: dict[str, Any] = {
        "name": "shape",
        "model": str(model),
        "input": f"{str(source).rstrip('/')}/",
        "output": {"path": target or f"{folder / output}-out/", "if_exists": "replace" if replace else "refuse"},
        "env": dict(env or {}),
    }
    if form:
        task["format"] = dict(form)
    path.write_text(json.dumps(task))
    return path


def _write_lines(paths: Sequence[Path], size: int, record_bytes: int) -> None:
    """So many bytes of lines in all, shared out to the files."""
    text = "x" * max(1, record_bytes - 60)
    number = 0
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        with path.open("w") as file:
            while written < size // len(paths):
                written += file.write(f'{{"id":{number},"user":"u{number:07d}","ts":{number},"text":"{text}"}}\n')
                number += 1
