"""Windows sorted by length: each item is called once, and what comes out is in order, in its own form."""

from __future__ import annotations

from typing import Any

import pytest

from tidemill_runtime import windows

numpy = pytest.importorskip("numpy")
hypothesis = pytest.importorskip("hypothesis")
st = pytest.importorskip("hypothesis.strategies")


def parts_of(order: list[int], cuts: list[int], failed: set[int], form: Any) -> list[tuple[list[int], Any]]:
    bounds = sorted({0, len(order), *(cut % (len(order) + 1) for cut in cuts)})
    calls = [order[low:high] for low, high in zip(bounds, bounds[1:])]  # noqa: B905, RUF007 (Python 3.9)
    kept = [[number for number in call if number not in failed] for call in calls]
    return [(call, form(call)) for call in kept if call]


FORMS: dict[str, Any] = {
    "list": lambda call: [f"p{number}" for number in call],
    "array": lambda call: numpy.array([[number, -number] for number in call], dtype="f4"),
    "labels": lambda call: numpy.array([f"p{number}" for number in call]),  # of another dtype from call to call
    "columns": lambda call: {"a": list(call), "b": numpy.array(call)},
}


@pytest.mark.parametrize("form", FORMS)
@hypothesis.given(
    order=st.permutations(range(12)), cuts=st.lists(st.integers(0, 12)), failed=st.sets(st.integers(0, 11))
)
def test_every_item_is_back_in_its_place(form: str, order: list[int], cuts: list[int], failed: set[int]) -> None:
    make = FORMS[form]
    found = windows.restored(parts_of(order, cuts, failed, make))
    numbers = [number for first, stop, _ in found for number in range(first, stop)]
    assert numbers == sorted(set(order) - failed)
    for first, stop, returned in found:
        wanted = make(list(range(first, stop)))
        assert type(returned) is type(wanted)
        assert plain(returned) == plain(wanted)


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return value.tolist() if hasattr(value, "tolist") else value


def test_frames_are_cut_by_place() -> None:
    pandas = pytest.importorskip("pandas")

    def frame(call: list[int]) -> Any:
        return pandas.DataFrame({"p": call}, index=[99 - number for number in call])

    found = windows.restored([([3, 0], frame([3, 0])), ([2, 1], frame([2, 1]))])
    assert [(first, stop, returned["p"].tolist()) for first, stop, returned in found] == [
        (number, number + 1, [number]) for number in range(4)
    ]


@hypothesis.given(
    st.lists(st.text() | st.binary() | st.fixed_dictionaries({"text": st.text(), "n": st.integers()}), min_size=1)
)
def test_an_order_is_a_permutation(items: list[Any]) -> None:
    order = windows.by_length(windows.lengths_of(items))
    assert order is None or sorted(order) == list(range(len(items)))


def test_the_longest_come_first() -> None:
    assert windows.by_length([1, 4, 2]) == [1, 2, 0]
    assert windows.lengths_of([{"id": 1, "text": "a"}, {"id": 2, "text": "aaa"}, "aa", b"abcd", 5]) == [1, 3, 2, 4, 0]
    assert windows.lengths_of({"columns": [1]}) == []


@pytest.mark.parametrize("items", [["ab", "cd", "e", "fg"], [1, 2, 3], [{"n": 1}, {"n": 22}], ["", ""]])
def test_what_is_as_long_as_the_rest_stays(items: list[Any]) -> None:
    assert windows.by_length(windows.lengths_of(items)) is None


def test_only_costly_records_are_worth_a_window() -> None:
    assert windows.reach(64, 0.00001, 10) == 64
    assert windows.reach(64, 0.001, 10) == 16 * 64
    assert windows.reach(64, 0.005, 10) == 400  # two seconds of work
    assert windows.reach(64, 0.005, 1) == 200
    assert windows.reach(64, 1.0, 10) == 64
    assert windows.reach(2, 0.001, 10) == 512  # small calls need a long window just as well
