"""Narrowing down what kills a worker, and marks that follow a commit."""

from __future__ import annotations

import pytest

from tidemill_runtime.board import Board, Totals, Window
from tidemill_runtime.suspicion import Condemned, Place, Suspect, Suspicion, moved, narrow

WHOLE = Place(0, 0, 1000, 0)


def died(suspects: list[Suspect], first: int, size: int) -> list[Suspect]:
    return narrow(suspects, Window(0, 0, 1000, first, size, 0.0), "crash")


@pytest.mark.parametrize("guilty", [0, 1, 31, 32, 500, 998, 999])
@pytest.mark.parametrize("size", [1, 2, 33, 1000])
def test_a_record_is_found_with_few_deaths(guilty: int, size: int) -> None:
    first = min(guilty, 1000 - size)
    suspects = died([], first, size)
    deaths = 1
    while suspects[-1].size > 1:
        suspicion = Suspicion(suspects, [])
        at = 0
        while True:
            stop = suspicion.stop(WHOLE, at, 1000)
            assert stop > at
            if at <= guilty < stop:
                break
            at = stop
        suspects = died(suspects, at, stop - at)
        deaths += 1
    assert suspects[-1].first == guilty
    assert deaths <= 3


def test_the_same_window_counts_its_deaths() -> None:
    suspects = died(died([], 4, 1), 4, 1)
    assert [each.deaths for each in suspects] == [2]


def test_marks_follow_a_commit_in_the_middle_of_their_block() -> None:
    suspects = [Suspect(0, 0, 1000, 10, 20, 1, "crash"), Suspect(0, 1000, 2000, 10, 20, 1, "crash")]
    condemned = [Condemned(0, 0, 1000, 5, 1, "crash", "", 1), Condemned(0, 0, 1000, 25, 1, "crash", "", 1)]
    old, new = Place(0, 0, 1000, 0), Place(0, 300, 1000, 15)
    assert moved(suspects, old, new) == [
        Suspect(0, 300, 1000, 0, 15, 1, "crash"),
        Suspect(0, 1000, 2000, 10, 20, 1, "crash"),
    ]
    assert moved(condemned, old, new) == [Condemned(0, 300, 1000, 10, 1, "crash", "", 1)]
    suspicion = Suspicion(suspects, condemned)
    suspicion.move(old, new)
    assert suspicion.verdict(new, 25) is not None
    assert suspicion.verdict(new, 26) is None
    assert suspicion.starts(new, 15)
    assert suspicion.stop(new, 20, 40) == 21
    assert suspicion.forced() == {0: {300: 1000, 1000: 2000}}


def test_the_board_is_read_as_it_was_written() -> None:
    board = Board()
    board.predict(Window(1, 2, 3, 4, 5, 6.5))
    board.account(Totals(10, 7, 2, 1, 64, 0.5, 0.25, 0.125, 9))
    assert board.window() == Window(1, 2, 3, 4, 5, 6.5)
    assert board.phase().sequence == 1
    assert board.totals() == Totals(10, 7, 2, 1, 64, 0.5, 0.25, 0.125, 9)
