"""Addresses are taken literally, and nothing climbs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.domain.errors import InvalidValue
from tidemill.domain.location import Location, parse_location


def parse(text: str, base: str | None = None) -> Location:
    return parse_location(text, field="input.path", base=base)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("cos://data/in/", Location("cos", "data", "in/")),
        ("s3://b/a b/中文#%20+.jsonl", Location("s3", "b", "a b/中文#%20+.jsonl")),
        ("cos://data", Location("cos", "data", "")),
        ("cos://data/", Location("cos", "data", "")),
        ("file:///in/x", Location("file", None, "/in/x")),
        ("file:///in/", Location("file", None, "/in/")),
        ("/in/a%2Fb#c", Location("file", None, "/in/a%2Fb#c")),
        ("/in/./a/../b/", Location("file", None, "/in/b/")),
        ("//in//x", Location("file", None, "/in/x")),
        ("/", Location("file", None, "/")),
        ("/in/..", Location("file", None, "/")),
        ("/in/x/..", Location("file", None, "/in/")),
    ],
)
def test_addresses(text: str, expected: Location) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("x", "/home/u/x"), ("./in/", "/home/u/in/"), ("../in", "/home/in"), (".", "/home/u/")]
)
def test_relative_paths_start_from_the_base(text: str, expected: str) -> None:
    assert parse(text, base="/home/u").key == expected
    with pytest.raises(InvalidValue, match="absolute"):
        parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " x",
        "x ",
        "cos://",
        "cos:///x",
        "gs://b/x",
        "http://host/x",
        "file://host/x",
        "cos://b//x",
        "cos://b/a//x",
        "cos://b/../x",
        "cos://b/a/..",
        "cos://b/./x",
        "cos://b/a\tb",
        "/a\nb",
        "/a\x7f",
    ],
)
def test_what_cannot_be(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse(text)
    assert caught.value.field == "input.path"
    assert caught.value.remedy


def test_children_and_folders() -> None:
    folder = parse("cos://data/out")
    assert not folder.is_folder
    assert folder.as_folder() == folder.child("") == parse("cos://data/out/")
    assert str(folder.child("a/b")) == "cos://data/out/a/b"
    assert str(parse("/out/").child("x")) == "/out/x"
    assert parse("cos://data").child("x") == parse("cos://data/x")
    assert parse("/").as_folder().child("x") == parse("/x")
    assert parse("/x").is_local
    assert not folder.is_local


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ("cos://data/in/", "cos://data/in/out/", True),
        ("cos://data/in", "s3://data/in/out", True),
        ("cos://data/in", "cos://data/in", True),
        ("cos://data/in", "cos://data/input", False),
        ("cos://data/", "cos://other/x", False),
        ("cos://data/", "cos://data/x", True),
        ("/in", "/in/x", True),
        ("/in", "cos://in/x", False),
        ("/", "/x", True),
    ],
)
def test_containing(outer: str, inner: str, expected: bool) -> None:
    assert parse(outer).contains(parse(inner)) is expected


NAMES = st.text(
    st.characters(min_codepoint=32, exclude_characters="/\x7f", exclude_categories=["Cs", "Cc"]), min_size=1
)


@given(st.lists(NAMES.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4))
def test_what_is_written_is_read_again(parts: list[str]) -> None:
    for location in (Location("cos", "data", "/".join(parts)), Location("file", None, "/" + "/".join(parts))):
        text = str(location)
        if text.strip() == text and "://" not in location.key:
            assert parse(text) == location
            assert location.as_folder().contains(location)
