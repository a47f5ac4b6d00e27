"""What runs find out about a model is kept for the next, and told in words."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tidemill.domain.tuning import joined, measured, model_key, sentences, shown
from tidemill.local.habits import FILE, habits_of
from tidemill_runtime.contract import Pins

TUNING = {
    "processes": 2,
    "processes_why": "one for each core",
    "threads": 1,
    "threads_why": "",
    "batch_size": 4096,
    "batch_size_why": "measured: 4,096 a call; 8,192 was no faster",
    "machine": "2 cores, 24.0 GiB",
    "keep": {"batch_size": 4096},
}


def test_choices_in_words() -> None:
    assert sentences(TUNING) == [
        "4,096 records a call (measured: 4,096 a call; 8,192 was no faster)",
        "2 processes (one for each core)",
        "1 thread each",
    ]
    assert sentences({}) == []


def test_what_was_measured() -> None:
    assert measured(TUNING) == ("2 cores, 24.0 GiB", Pins(4096))
    assert joined(Pins(64, 1, 4), Pins(batch_size=128)) == Pins(128, 1, 4)


@pytest.mark.parametrize(
    "lies",
    [
        {},
        {"machine": "x"},
        {"machine": 3, "keep": {"batch_size": 1}},
        {"machine": "x", "keep": []},
        {"machine": "x", "keep": {"batch_size": True}},
        {"machine": "x", "keep": {"batch_size": -1, "processes": "2", "threads": 10**12}},
        {"machine": "x\0", "keep": {"batch_size": 1}},
        {"machine": "x" * 1000, "keep": {"batch_size": 1}},
    ],
)
def test_nothing_is_taken_on_trust(lies: dict[str, object]) -> None:
    assert measured(lies) is None


def test_habits_are_of_a_model_as_it_is(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "model_service.py").write_text("a")
    habits = habits_of(tmp_path / "data", [model], None)
    assert habits.hints() == {}
    habits.keep(TUNING)
    habits.keep({**TUNING, "keep": {"processes": 1, "threads": 2}})
    assert habits.hints() == {"2 cores, 24.0 GiB": Pins(4096, 1, 2)}
    assert habits_of(tmp_path / "data", [model], "m:f").hints() == {}
    (model / "model_service.py").write_text("another")
    assert habits_of(tmp_path / "data", [model], None).hints() == {}
    assert os.listdir(tmp_path / "data") == [FILE]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"x": 1}', "\x00\xff"])
def test_a_damaged_file_is_as_good_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_bytes(text.encode("latin-1"))
    habits = habits_of(tmp_path, [], None)
    assert habits.hints() == {}
    habits.keep(TUNING)
    assert habits.hints() == {"2 cores, 24.0 GiB": Pins(4096)}


def test_a_file_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no folder")
    habits = habits_of(tmp_path / "data", [], None)
    habits.keep(TUNING)
    assert habits.hints() == {}


def test_what_is_shown_is_choices_and_reasons_alone() -> None:
    said = {"processes": 2, "processes_why": "one for each core", "threads": "8", "machine": "m"}
    assert shown({**said, "keep": {"batch_size": 1}, "x" * 100: [0] * 1000}) == {
        "processes": 2,
        "processes_why": "one for each core",
        "machine": "m",
    }
    assert shown({}) == {}


def test_a_model_is_known_by_its_packages_and_function() -> None:
    assert model_key("m", None, None) == "m - -"
    assert model_key(None, "c", "f:g") == "- c f:g"
    assert model_key(None, None, "f:g") is None
