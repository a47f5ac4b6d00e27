"""input.include and input.exclude."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.domain.errors import InvalidValue
from tidemill.planning.patterns import selector


@pytest.mark.parametrize(
    ("pattern", "taken", "left"),
    [
        ("*.jsonl", ["a.jsonl", "deep/er/b.jsonl"], ["a.json", "jsonl", "a.jsonl.gz"]),
        ("a?.csv", ["ab.csv", "x/a1.csv"], ["a.csv", "abc.csv"]),
        ("[ab]*.csv", ["a.csv", "bx.csv"], ["c.csv"]),
        ("[!ab]*.csv", ["c.csv"], ["a.csv"]),
        ("[a", ["[a"], ["a"]),
        ("2026/**", ["2026/a", "2026/b/c"], ["2025/a", "x/2026/a", "2026"]),
        ("2026/", ["2026/a", "2026/b/c"], ["2025/a"]),
        ("2026/*", ["2026/a"], ["2026/b/c"]),
        ("**/x/*.txt", ["x/1.txt", "a/x/1.txt", "a/b/x/1.txt"], ["x/y/1.txt", "ax/1.txt"]),
        ("a/**/z", ["a/z", "a/b/z", "a/b/c/z"], ["az", "b/z"]),
        ("100%+(1).txt", ["100%+(1).txt"], ["100%%(1).txt"]),
        ("日*", ["日本.txt", "x/日"], ["本日"]),
    ],
)
def test_patterns(pattern: str, taken: list[str], left: list[str]) -> None:
    included, excluded = selector([pattern], []), selector([], [pattern])
    for name in taken:
        assert included(name) and not excluded(name), name
    for name in left:
        assert not included(name) and excluded(name), name


def test_what_is_no_input_is_never_taken() -> None:
    takes = selector(["*"], [])
    assert takes("a/b")
    assert not any(map(takes, ["_SUCCESS", "a/", ".hidden", "_tidemill/x", "a/_logs/b", "a/.b/c"]))


def test_exclude_wins() -> None:
    takes = selector(["*.txt", "*.csv"], ["bad*"])
    assert [name for name in ("a.txt", "a.csv", "bad.txt", "a.png") if takes(name)] == ["a.txt", "a.csv"]


@pytest.mark.parametrize("pattern", ["", "/a", "a//b", "[z-a]"])
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(InvalidValue, match=r"input\.include"):
        selector([pattern], [])


@given(st.text(min_size=1, max_size=20))
def test_a_name_without_signs_matches_itself_alone(name: str) -> None:
    if any(char in name for char in "*?[]/") or name[0] in "._":
        return
    assert selector([name], [])(name)
    assert selector([name], [])("folder/" + name)
    assert not selector([name], [])(name + "x")
