"""An instance's life: commits on the way, stopping, a coordinator that goes away, kills from outside."""

from __future__ import annotations

import gzip
import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.integration.runtime_coordinator import Bench, HttpDoor, pids_below, serve_socket, wait_until
from tidemill_runtime.contract import Channel, InputFormat, Report, ResultFormat

IDENTITY = """
    class Model:
        def load(self): return True
        def predict(self, batch: list[dict]): return [r["id"] for r in batch]
"""
SLOW = """
    import time
    class Model:
        def load(self): return True
        def predict(self, request):
            time.sleep(0.01)
            return request["id"]
"""
STUCK = """
    import time
    class Model:
        def load(self): return True
        def predict(self, batch: list[dict]): time.sleep(3600)
"""


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def numbers(count: int) -> bytes:
    return b"".join(b'{"id": %d}\n' % i for i in range(count))


def ids(count: int) -> bytes:
    return b"".join(b"%d\n" % i for i in range(count))


def test_a_slow_split_is_committed_on_the_way(bench: Bench) -> None:
    bench.model(SLOW).file("a.jsonl", numbers(150))
    done = bench.run(bench.whole(), commit_every_s=0.3)
    assert done.results()["a.jsonl"] == ids(150)
    assert len(done.splits[0].commits) >= 3
    assert any(report.pending.inputs for report in done.reports)


def test_a_refused_commit_costs_its_work_alone(bench: Bench) -> None:
    bench.model(SLOW).file("a.jsonl", numbers(100))
    coordinator = bench.coordinator(bench.ranges(300))
    coordinator.refuse_commits = 2
    with bench.instance(coordinator, 30, commit_every_s=0.2) as process:
        serve_socket(coordinator, process.channel, 30)  # type: ignore[attr-defined]
        assert process.wait(30) == 0, bench.log()
    assert coordinator.results()["a.jsonl"] == ids(100)


def test_states_and_account(bench: Bench) -> None:
    bench.model(IDENTITY).file("a.jsonl", numbers(1000))
    done = bench.run(bench.whole())
    states = [report.state for report in done.reports]
    assert states[0] in ("starting", "loading")
    assert states[-1] == "running"
    last = done.reports[-1]
    assert last.seconds["load"] > 0
    assert last.tuning["processes"] == 1
    assert done.reports[0].want == 1


def test_orders_to_flush_then_stop(bench: Bench) -> None:
    bench.model(SLOW).file("a.jsonl", numbers(5000))
    coordinator = bench.coordinator(bench.whole())

    def flush(report: Report) -> None:
        if report.pending.inputs > 3 and coordinator.directive is None:
            coordinator.directive = "flush"
        elif report.state == "stopping" and report.commits:
            coordinator.directive = "stop"

    coordinator.on_report = flush
    with bench.instance(coordinator, 30, commit_every_s=60) as process:
        serve_socket(coordinator, process.channel, 30)  # type: ignore[attr-defined]
        assert process.wait(30) == 5, bench.log()
    result = coordinator.results()["a.jsonl"]
    assert 3 < result.count(b"\n") < 5000
    assert result == ids(result.count(b"\n"))


def test_sigterm_keeps_what_is_computed(bench: Bench) -> None:
    bench.model(SLOW).file("a.jsonl", numbers(5000))
    coordinator = bench.coordinator(bench.whole())
    with HttpDoor(coordinator) as door:
        process = bench.start(bench.manifest(Channel("http", door.url, "secret"), commit_every_s=60))
        wait_until(lambda: coordinator.reports and coordinator.reports[-1].pending.inputs > 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 5, bench.log()
    result = coordinator.results()["a.jsonl"]
    assert result == ids(result.count(b"\n")) != b""
    assert bench.exit() == {"code": 5, "fault": None}


def test_the_closed_socket_ends_the_instance_and_its_workers(bench: Bench) -> None:
    bench.model(STUCK).file("a.jsonl", numbers(10))
    coordinator = bench.coordinator(bench.whole())
    with bench.instance(coordinator, 30, millicores=2000) as process:
        channel = process.channel  # type: ignore[attr-defined]
        served = threading.Thread(target=serve_socket, args=(coordinator, channel, 30))
        served.start()
        wait_until(lambda: coordinator.reports and coordinator.reports[-1].state == "running")
        workers = pids_below(process.pid)
        assert len(workers) == 2
        channel.shutdown(2)
        assert process.wait(10) == 4
        served.join()
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers))


def test_workers_die_with_a_killed_agent(bench: Bench) -> None:
    bench.model(STUCK).file("a.jsonl", numbers(10))
    coordinator = bench.coordinator(bench.whole())
    with HttpDoor(coordinator) as door:
        process = bench.start(bench.manifest(Channel("http", door.url, "secret")))
        wait_until(lambda: coordinator.reports and coordinator.reports[-1].state == "running")
        workers = pids_below(process.pid)
        process.kill()
        process.wait()
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in workers))


def test_a_worker_killed_from_outside_loses_and_blames_nothing(bench: Bench) -> None:
    bench.model(SLOW).file("a.jsonl", numbers(200))
    coordinator = bench.coordinator(bench.whole())
    killed: list[int] = []

    with HttpDoor(coordinator) as door:
        process = bench.start(bench.manifest(Channel("http", door.url, "secret"), commit_every_s=0.2))
        for _ in range(3):
            wait_until(lambda: coordinator.reports and coordinator.reports[-1].pending.inputs > 3)
            victims = [pid for pid in pids_below(process.pid) if pid not in killed]
            if victims:
                os.kill(victims[0], signal.SIGKILL)
                killed += victims
            time.sleep(0.3)  # so that the next kill meets another record
        assert process.wait(30) == 0, bench.log()
    assert coordinator.results()["a.jsonl"] == ids(200)
    assert coordinator.errors() == []


def test_a_token_that_is_refused_ends_the_instance(bench: Bench) -> None:
    bench.model(IDENTITY).file("a.jsonl", numbers(10))
    with HttpDoor(bench.coordinator(bench.whole()), token="other") as door:
        process = bench.start(bench.manifest(Channel("http", door.url, "secret")))
        assert process.wait(20) == 4


def test_nobody_answers(bench: Bench) -> None:
    bench.model(IDENTITY).file("a.jsonl", numbers(10))
    process = bench.start(bench.manifest(Channel("http", "http://127.0.0.1:9", "secret"), orphan_after_s=0.5))
    assert process.wait(20) == 4


def test_the_server_restarts_at_the_same_address(bench: Bench) -> None:
    bench.model(SLOW).file("a.jsonl", numbers(100))
    coordinator = bench.coordinator(bench.ranges(200))
    with HttpDoor(coordinator) as door:
        process = bench.start(bench.manifest(Channel("http", door.url, "secret"), commit_every_s=0.2))
        wait_until(lambda: any(split.commits for split in coordinator.splits))
        door.failing = [503] * 4
        assert process.wait(40) == 0, bench.log()
    assert coordinator.results()["a.jsonl"] == ids(100)


@pytest.mark.parametrize("when", ["before", "during"])
def test_an_input_that_changed_is_never_mixed(bench: Bench, when: str) -> None:
    path = bench.model(SLOW).file("a.jsonl", numbers(200))
    coordinator = bench.coordinator(bench.whole())
    if when == "before":
        path.write_bytes(numbers(201))
    else:
        coordinator.on_report = lambda report: path.write_bytes(numbers(199)) if report.pending.inputs else None
    with bench.instance(coordinator, 30, commit_every_s=60) as process:
        serve_socket(coordinator, process.channel, 30)  # type: ignore[attr-defined]
        assert process.wait(30) == 3, bench.log()
    assert coordinator.fault is not None
    assert coordinator.fault.kind == "input_changed"
    assert "a.jsonl" in coordinator.fault.message
    assert not coordinator.splits[0].commits


def test_a_missing_parts_folder_is_a_fault(bench: Bench) -> None:
    bench.model(IDENTITY).file("a.jsonl", numbers(10))
    (bench.root / "parts").rmdir()
    coordinator = bench.coordinator(bench.whole())
    with bench.instance(coordinator, 30) as process:
        serve_socket(coordinator, process.channel, 30)  # type: ignore[attr-defined]
        assert process.wait(30) == 3
    assert coordinator.fault is not None
    assert coordinator.fault.kind == "staging_failed"


@pytest.mark.parametrize("compression", ["gzip", "zstd"])
def test_compressed_objects(bench: Bench, compression: str) -> None:
    data = numbers(3000)
    if compression == "gzip":
        packed = gzip.compress(data[:9000]) + gzip.compress(data[9000:])
    else:
        zstandard = pytest.importorskip("zstandard")
        packed = zstandard.compress(data[:9000]) + zstandard.compress(data[9000:])
    bench.model(IDENTITY).file("a.jsonl.z", packed)
    bench.file("b.jsonl.z", packed[: len(packed) // 2])
    whole = bench.whole()
    done = bench.run(whole[:1], input=InputFormat("jsonl", compression=compression), commit_every_s=0.0)
    assert done.results()["a.jsonl.z"] == ids(3000)
    assert len(done.splits[0].commits) > 1
    whole[1].no = 0
    damaged = bench.run(whole[1:], expect=3, input=InputFormat("jsonl", compression=compression))
    assert damaged.fault is not None
    assert damaged.fault.kind == "format_mismatch"


def test_text(bench: Bench) -> None:
    bench.model("""
        class Model:
            def predict(self, batch: list[str]): return [line.upper() for line in batch]
    """).file("a.txt", "eins\r\nzwei\n\n三\nvier".encode() + b"\n\xff\nlast")
    done = bench.run(bench.whole(), input=InputFormat("text"))
    assert done.results()["a.txt"].decode() == '"EINS"\n"ZWEI"\n"三"\n"VIER"\nnull\n"LAST"\n'
    assert [row for _, row, _ in done.errors()] == [5]


def test_files_are_records(bench: Bench) -> None:
    bench.model("""
        import os
        class Model:
            def __init__(self, model_dir): assert os.path.isdir(os.path.join(model_dir, "batch"))
            def load(self): return True
            def predict(self, request):
                with open(request, "rb") as file: data = file.read()
                if data == b"17": os._exit(1)
                if data == b"40": raise ValueError("forty")
                return int(data)
    """)
    for number in range(90):
        bench.file(f"sub dir/{number:03d} 图#%.bin", str(number))
    done = bench.run(bench.whole(per_split=50), input=InputFormat("file"), result=ResultFormat(form="named"))
    found = [json.loads(line) for line in done.results()["part"].splitlines()]
    assert found == [
        None if number in (17, 40) else {"path": f"sub dir/{number:03d} 图#%.bin", "prediction": number}
        for number in range(90)
    ]
    assert [(name[8:11], record.fault) for name, _, record in done.errors()] == [
        ("017", "crash"),
        ("040", "model_error"),
    ]


def test_output_of_the_model_is_the_instances_log(bench: Bench) -> None:
    bench.model("""
        import sys
        class Model:
            def load(self): print("loading"); print("to stderr", file=sys.stderr)
            def predict(self, request): return 1
            def close(self): print("closed")
    """).file("a.jsonl", numbers(3))
    bench.run(bench.whole())
    assert bench.log().splitlines() == ["loading", "to stderr", "closed"]
