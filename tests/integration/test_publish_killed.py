"""Publishing is killed (SIGKILL) at each of its points and at random, and begun again: the bytes are the same."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import S3Bucket
from tests.integration.publish_world import Place, World, make_world
from tests.integration.test_publish import MIXED, SMALL
from tidemill.domain.receipt import canonical
from tidemill.domain.splits import Cut, Layout

POINTS = [
    "publish.assembling",
    "publish.result",
    "publish.result#3",
    "publish.assembled#2",
    "publish.unit",
    "publish.unit#3",
    "finish.errors",
    "finish.receipt",
    "finish.marked",
]
SEED = int(os.environ.get("TIDEMILL_TEST_SEED", "20261122"))
ROUNDS = 40 if os.environ.get("TIDEMILL_TEST_PROFILE") == "soak" else 4


@pytest.fixture
def s3_place(s3: S3Bucket, tmp_path: Path) -> Place:
    return Place(str(tmp_path), "cos://data/out/", (s3.bucket, s3.endpoint, s3.key, s3.secret))


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    remote = request.param == "s3"
    return request.getfixturevalue("s3_place") if remote else Place(str(tmp_path), f"{tmp_path}/out/")


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    root = tmp_path_factory.mktemp("undisturbed")
    return finished(computed(Place(str(root), f"{root}/out/")))


def computed(place: Place) -> World:
    inputs = MIXED | dict(list(SMALL.items())[:40])
    world = make_world(place, inputs, Cut.RANGES, Layout.PER_OBJECT)
    world.compute(records_per_part=150)
    return world


def finished(world: World) -> dict[str, bytes]:
    world.run_to_end()
    return same_everywhere(world)


def same_everywhere(world: World) -> dict[str, bytes]:
    """The results; what names the output folder itself, and is signed with it, is made the same for all worlds."""
    found = world.results()
    place = str(world.output).encode()
    receipt = canonical({**json.loads(found["receipt.json"]), "signature": None}).replace(place, b"OUT")
    marker = found["_SUCCESS"].partition(b"\n")[2]  # its header has the receipt's digest
    return found | {"receipt.json": receipt, "_SUCCESS": marker}


def start(world: World, **env: str) -> subprocess.Popen[bytes]:
    saved = Path(world.place.root) / "world.json"
    world.save(saved)
    command = [sys.executable, "-m", "tests.integration.publish_world", str(saved)]
    return subprocess.Popen(command, env=os.environ | env)


@pytest.mark.parametrize("point", POINTS)
def test_killed_at(point: str, place: Place, undisturbed: dict[str, bytes], tmp_path: Path) -> None:
    world = computed(place)
    reached = tmp_path / "reached"
    killed = start(world, TIDEMILL_CRASH_AT=point, TIDEMILL_CRASH_FILE=str(reached))
    assert killed.wait(60) == -signal.SIGKILL
    assert reached.exists()
    if point != "finish.marked":
        assert "_SUCCESS" not in world.results()
    assert start(world).wait(60) == 0
    assert same_everywhere(world) == undisturbed
    assert world.staged() == []
    if world.output.is_local:
        left = sorted(name for _, _, names in os.walk(f"{tmp_path}/out") for name in names)
        assert left == sorted(name.rpartition("/")[2] for name in undisturbed)


@pytest.mark.kill
@pytest.mark.parametrize("number", range(ROUNDS))
def test_killed_at_random(number: int, place: Place, undisturbed: dict[str, bytes]) -> None:
    chance = random.Random(SEED + number)
    world = computed(place)
    for _ in range(50):
        process = start(world)
        deadline = time.monotonic() + chance.uniform(0.15, 1.2)  # it starts in 0.2 s and is through after 1
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.kill()
        if process.wait() == 0:
            break
        if "_SUCCESS" in world.results():
            assert same_everywhere(world) == undisturbed
    else:
        assert start(world).wait(60) == 0
    assert same_everywhere(world) == undisturbed
    assert world.staged() == []
