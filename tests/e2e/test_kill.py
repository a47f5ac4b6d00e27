"""SIGKILL of the server, of instances, of both, at every named point of a run's life and at random.

After a restart the task goes on where it was: the results are byte for byte those of the undisturbed run, and nothing
is left over.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from tests.e2e.harness import FILES, LINES, Crash, Job, Server, counted, results, until
from tidemill.crashpoints import POINTS

pytestmark = [pytest.mark.kill, pytest.mark.timeout(180)]

SEED = int(os.environ.get("TIDEMILL_TEST_SEED", "20261122"))
AT_LENGTH = os.environ.get("TIDEMILL_TEST_PROFILE") == "soak"
WITH_INSTANCES = [
    "place.launched",
    "runner.received",
    "runner.committed",
    "reconcile.observed",
    "publish.assembling",
    "publish.assembled",
    "publish.unit",
]
"""Points at which instances may be there to be killed. At others there are none, or it is the engine's own concern."""
SAMPLED = 4
"""Of the cases in which instances die with the server, so many are tried on each database but at length."""


def _sampled(cases: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return cases if AT_LENGTH else sorted(random.Random(SEED).sample(cases, SAMPLED))


def check(server: Server, job: Job, task: str, undisturbed: dict[str, bytes], output: Path, counts: Path) -> None:
    """The end is as good as if nothing had happened."""
    seen = server.finished(task)
    assert (seen["status"], seen["counts"]["inputs"]) == ("SUCCEED", FILES * LINES), seen
    until(lambda: not (output / "_tidemill").exists(), "no staging", within_s=20)
    assert results(output) == undisturbed
    assert (output / "_SUCCESS").exists()
    assert (output / "receipt.json").exists()
    assert set(counted(counts)) == job.numbers
    until(lambda: not server.leftovers(), f"nothing left over: {server.leftovers()}", within_s=20)
    assert server.task(task)["counts"] == seen["counts"]


@pytest.mark.parametrize("point", [point for point in POINTS if point != "finish.merging"])
def test_server_killed_at(point: str, server: Server, job: Job, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    output, counts = tmp_path / "out", tmp_path / "counts"
    crash = Crash(point, tmp_path / "reached")
    server.start(crash)
    record_s = 0.01 if point == "reconcile.observed" else 0.0
    body = job.task(output, counts, record_s=record_s)
    with contextlib.suppress(httpx.TransportError):  # it may die before it has answered
        server.create(body)
    if point == "reconcile.observed":  # somebody has to die to be seen
        until(lambda: counted(counts), "predictions")
        assert server.kill_instances() == 1
    until(lambda: crash.reached, f"{point}\n{server.tail()}")
    until(server.gone, "the server's death")
    server.start()
    check(server, job, server.create(body), undisturbed, output, counts)


def test_server_killed_while_results_are_taken_over(
    server: Server, job: Job, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    counts = tmp_path / "counts"
    server.start()
    first = server.create(job.task(tmp_path / "one", counts))
    assert server.finished(first)["status"] == "SUCCEED"
    server.kill()
    crash = Crash("finish.merging", tmp_path / "reached")
    server.start(crash)
    task = server.create({**job.task(tmp_path / "two", counts), "only_new": {"since": first, "output": "merged"}})
    until(lambda: crash.reached, f"the point\n{server.tail()}")
    until(server.gone, "the server's death")
    server.start()
    check(server, job, task, {**undisturbed, "_deleted.jsonl": b""}, tmp_path / "two", counts)


@pytest.mark.parametrize(
    ("point", "victims"), _sampled([(point, who) for point in WITH_INSTANCES for who in ("instances", "both")])
)
def test_instances_killed_at(
    point: str, victims: str, server: Server, job: Job, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    output, counts = tmp_path / "out", tmp_path / "counts"
    crash = Crash(point, tmp_path / "reached", how="pause")
    server.start(crash)
    record_s = 0.01 if point == "reconcile.observed" else 0.0
    task = server.create(job.task(output, counts, instances=2, record_s=record_s))
    if point == "reconcile.observed":
        until(lambda: counted(counts), "predictions")
        assert server.kill_instances() >= 1
    until(lambda: crash.reached, f"{point}\n{server.tail()}")
    server.kill_instances()
    if victims == "both":
        server.kill()
        server.start()
    else:
        crash.file.unlink()
    check(server, job, task, undisturbed, output, counts)


@pytest.mark.parametrize("round_no", range(25 if AT_LENGTH else 2))
def test_killed_at_random(
    round_no: int, server: Server, job: Job, undisturbed: dict[str, bytes], tmp_path: Path
) -> None:
    """Two kills a round: at length it is 100 on both databases."""
    chance = random.Random(f"{SEED}-{round_no}-{str(server.store_url)[:6]}")
    output, counts = tmp_path / "out", tmp_path / "counts"
    server.start()
    task = server.create(job.task(output, counts, instances=2, record_s=0.001))
    for _ in range(2):
        time.sleep(chance.uniform(0, 1.5))  # chance is what is tried here
        victims = chance.choice(["server", "instances", "both"])
        if victims != "server":
            server.kill_instances()
        if victims != "instances":
            server.kill()
            time.sleep(chance.choice([0, 0, 0.5, 3]))  # 3 s: longer than a lease
            server.start()
    check(server, job, task, undisturbed, output, counts)
    again = Counter(counted(counts))
    assert sum(again.values()) <= 3 * len(job.numbers), "committed work was done again"
