"""Names in an output folder, and what is no input."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.domain import layout


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.jsonl", True),
        ("a/b c/中文#1.jsonl", True),
        ("", False),
        ("a/", False),
        ("_SUCCESS", False),
        ("a/_SUCCESS", False),
        ("_tidemill/t/listing.jsonl", False),
        (".hidden", False),
        (".git/config", False),
        ("a/.DS_Store", False),
        ("_temporary/0/part", False),
        ("a_b/c.d", True),
    ],
)
def test_what_is_an_input(name: str, expected: bool) -> None:
    assert layout.is_input(name) is expected


def test_staging_is_below_one_folder_of_the_task() -> None:
    names = [
        layout.listing_name("t"),
        layout.parts_folder("t") + layout.part_name(7, 2, "ab"),
        layout.unit_manifest("t", 3),
        layout.unit_errors("t", 3),
    ]
    assert len(set(names)) == 4
    assert all(name.startswith(layout.task_folder("t")) for name in names)
    assert not any(layout.is_input(name) for name in [*names, layout.CLAIM, layout.MARKER])


def test_parts_and_units_sort_as_they_count() -> None:
    assert layout.part_name(9, 1, "x") < layout.part_name(10, 1, "x")
    assert layout.unit_manifest("t", 99) < layout.unit_manifest("t", 100)
    assert layout.result_for_part(9, "jsonl") < layout.result_for_part(10, "jsonl") == "part-00010.jsonl"
    assert layout.result_single("text") == "predictions.txt"


@given(st.text(min_size=1), st.text(min_size=1))
def test_no_two_inputs_share_a_result(one: str, other: str) -> None:
    results = {layout.result_for_object(name, "jsonl") for name in (one, other)}
    assert len(results) == len({one, other})
    assert not results & {layout.ERRORS, layout.RECEIPT, layout.MARKER}


def test_files_are_named_after_their_inputs() -> None:
    assert layout.result_for_object("a/b.jpg", "file") == "a/b.jpg.out"
    assert layout.result_for_object("a/b.jpg", "file", ".png") == "a/b.png"
    assert layout.result_for_object("a.b/c", "file", ".png") == "a.b/c.png"
    assert layout.result_for_object("a/b.tar.gz", "file", ".out.gz") == "a/b.tar.out.gz"
