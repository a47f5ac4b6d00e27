"""A finished folder against its receipt: every byte counts."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from tests.integration.local_world import World
from tidemill.domain.errors import InvalidValue, NotFound
from tidemill.domain.receipt import canonical
from tidemill.local.verifying import Verified, verify

BAD = """
    class Model:
        def predict(self, batch: list[dict]): return [10 // record["x"] for record in batch]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("made"))
    world.model(BAD).numbers("in/a.jsonl", [1, 2, 3]).numbers("in/b.jsonl", [0, 4])
    assert world.run(tolerance=1).ok == 4
    return world


@pytest.fixture
def out(made: World, tmp_path: Path) -> Path:
    """A copy that may be spoilt."""
    return Path(shutil.copytree(made.root / "out", tmp_path / "out"))


@pytest.fixture
def check(made: World, out: Path) -> Check:
    return Check(made, out)


class Check:
    def __init__(self, world: World, out: Path) -> None:
        self.world = world
        self.out = out

    def __call__(self, key: str | None = None, *, check_input: bool = True) -> Verified:
        return verify(self.out, key=key, check_input=check_input, settings=self.world.settings)

    def told(self) -> dict[str, str]:
        return {each.name: each.what for each in self().differences}


def test_what_was_not_touched_is_good(check: Check, made: World) -> None:
    found = check()
    assert (found.differences, found.good, found.holder) == ((), True, "laptop")
    assert (found.objects, found.bytes) == (2, sum(len(data) for data in made.results().values() if data[:1] != b"{"))
    assert found.input_checked
    assert check(key=found.key).good


def test_a_key_that_is_not_the_signers(check: Check) -> None:
    found = check(key="0123456789abcdef")
    assert "not by 0123456789abcdef" in found.differences[0].what


def test_every_object_that_is_missing_is_named(check: Check, out: Path) -> None:
    for name in ("a.jsonl.out.jsonl", "errors.jsonl", "_inputs.jsonl", "_SUCCESS"):
        kept = (out / name).read_bytes()
        (out / name).unlink()
        assert check.told() == {name: "it is missing"}
        (out / name).write_bytes(kept)
    assert check().good
    (out / "receipt.json").unlink()
    with pytest.raises(NotFound, match=r"receipt\.json"):
        check()


def test_an_object_that_is_not_of_the_task(check: Check, out: Path) -> None:
    (out / "c.jsonl.out.jsonl").write_bytes(b"1\n")
    assert list(check.told()) == ["c.jsonl.out.jsonl"]


def test_every_single_byte_counts(check: Check, out: Path) -> None:
    """Each byte of every file, changed into another: nothing passes."""
    chance = random.Random(4)
    for path in sorted(out.iterdir()):
        if path.is_dir():
            continue
        whole = path.read_bytes()
        places = range(len(whole)) if len(whole) < 400 else sorted(chance.sample(range(len(whole)), 300))
        for at in places:
            spoilt = bytearray(whole)
            spoilt[at] ^= 1 << chance.randrange(8)
            path.write_bytes(spoilt)
            try:
                found = check(check_input=False)
            except InvalidValue:
                continue  # it is no receipt any more, and says so
            assert not found.good, (path.name, at, bytes(spoilt))
        path.write_bytes(whole)
    assert check().good


def test_the_same_receipt_written_otherwise(check: Check, out: Path) -> None:
    receipt = json.loads((out / "receipt.json").read_text())
    (out / "receipt.json").write_text(json.dumps(receipt))
    assert "written otherwise" in check.told()["receipt.json"]


def test_a_receipt_without_its_signature(check: Check, out: Path) -> None:
    receipt = json.loads((out / "receipt.json").read_text())
    (out / "receipt.json").write_text(json.dumps({**receipt, "signature": None}))
    assert check.told()["receipt.json"] == "it is not signed"


def test_an_input_that_was_written_again(tmp_path: Path) -> None:
    world = World(tmp_path).model().numbers("in/a.jsonl", [1]).numbers("in/b.jsonl", [2])
    assert world.run().ok == 2
    world.numbers("in/a.jsonl", [7])
    (tmp_path / "in/b.jsonl").unlink()
    found = verify(tmp_path / "out", settings=world.settings)
    assert {each.name: each.what for each in found.differences} == {
        "input: a.jsonl": "it was written again after the run was planned",
        "input: b.jsonl": "it is gone",
    }
    shutil.rmtree(tmp_path / "in")
    found = verify(tmp_path / "out", settings=world.settings)
    assert (found.good, found.input_checked) == (True, False)


def test_what_is_no_receipt(check: Check, out: Path) -> None:
    (out / "receipt.json").write_text("{}")
    with pytest.raises(InvalidValue, match="no receipt"):
        check()


def test_whose_key_it_is_cannot_be_rewritten(check: Check, out: Path) -> None:
    """Not even where the marker is made to fit."""
    receipt = json.loads((out / "receipt.json").read_text())
    receipt["signature"]["holder"] = "server"
    (out / "receipt.json").write_bytes(canonical(receipt))
    assert "something in it was changed" in check.told()["receipt.json"]
