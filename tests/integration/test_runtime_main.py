"""The runtime end to end: a real instance process, real files, a small coordinator."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tidemill_runtime
from tests.integration.runtime_coordinator import Bench, HttpDoor
from tidemill_runtime.contract import Channel

LENGTHS = """
    class Model:
        def load(self): return True
        def predict(self, batch: list[dict]):
            return [len(record["text"]) for record in batch]
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def lines(count: int, seed: int = 0) -> list[dict[str, object]]:
    return [{"id": i, "text": "x" * ((i * 7 + seed) % 90)} for i in range(count)]


def jsonl(records: list[dict[str, object]]) -> bytes:
    return b"".join(json.dumps(record).encode() + b"\n" for record in records)


def expected(records: list[dict[str, object]]) -> bytes:
    return b"".join(b"%d\n" % len(str(record["text"])) for record in records)


def test_ranges_of_one_object(bench: Bench) -> None:
    records = lines(20_000)
    bench.model(LENGTHS).file("a.jsonl", jsonl(records))
    done = bench.run(bench.ranges(100_000))
    assert done.results() == {"a.jsonl": expected(records)}
    assert done.counts().ok == 20_000


def test_groups_of_objects_and_two_processes(bench: Bench) -> None:
    for number in range(20):
        bench.file(f"n{number:02d}.jsonl", jsonl(lines(50 * (number % 4), number)))
    bench.model(LENGTHS)
    done = bench.run(bench.whole(per_split=7), millicores=2000)
    assert done.results() == {
        f"n{number:02d}.jsonl": expected(lines(50 * (number % 4), number)) for number in range(20) if number % 4
    }


def test_over_http(bench: Bench) -> None:
    records = lines(1000)
    bench.model(LENGTHS).file("a.jsonl", jsonl(records))
    coordinator = bench.coordinator(bench.ranges(10_000))
    with HttpDoor(coordinator) as door:
        door.failing = [503, 500, 429]
        process = bench.start(bench.manifest(Channel("http", door.url, "secret")))
        assert process.wait(30) == 0, bench.log()
    assert coordinator.results() == {"a.jsonl": expected(records)}
    assert set(door.tokens) == {"Bearer secret"}


def test_the_users_libraries_come_before_those_of_an_injected_runtime(bench: Bench) -> None:
    injected = bench.root / "injected"
    injected.mkdir()
    (injected / "tidemill_runtime").symlink_to(Path(tidemill_runtime.__file__).parent)
    (injected / "pytest.py").write_text("WHOSE = 'the runtime'")
    bench.model("""
        import pytest
        class Model:
            def predict(self, batch): return [getattr(pytest, "WHOSE", "the user")] * len(batch)
    """).file("a.jsonl", b"1\n")
    done = bench.run(bench.whole(), environment={"PYTHONPATH": str(injected)})
    assert done.results() == {"a.jsonl": b'"the user"\n'}
