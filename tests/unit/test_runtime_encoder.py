"""Result lines: columns are written as the same values one by one would be."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from tidemill_runtime.contract import ResultFormat
from tidemill_runtime.encoder import Encoder, make_encoder
from tidemill_runtime.isolation import Piece


class Rows:
    """Records of which only what is carried is asked for."""

    def __init__(self, ids: list[Any]) -> None:
        self._ids = ids

    def carried(self, names: list[str], first: int, stop: int) -> list[list[Any]]:
        return [self._ids[first:stop] for _ in names]


def encoder(*keys: str) -> Encoder:
    return make_encoder(ResultFormat(keys=list(keys)), [])


def lines(returned: Any, count: int, *keys: str) -> bytes:
    rows: Any = Rows(list(range(100, 200)))
    piece = Piece(5, 5 + count, returned)
    found = encoder(*keys).rows(rows, piece, 5, 5 + count)
    one = encoder(*keys)
    singly = b"".join([one.rows(rows, piece, item, item + 1) for item in range(5, 5 + count)])
    assert found == singly, "where a piece is cut must not show"
    return found


VALUES: dict[str, list[Any]] = {"x": [1, 2.5, None], "é y": ["a", "ü\n", None], "n": [[1], {"a": 1}, None]}
NAMES = list(VALUES)
DICTS = [{name: VALUES[name][row] for name in NAMES} for row in range(3)]


def test_a_dict_of_columns_is_written_as_dicts() -> None:
    assert lines(VALUES, 3) == lines(DICTS, 3) == msgspec.json.Encoder().encode_lines(DICTS)
    assert lines(VALUES, 3, "id") == lines(DICTS, 3, "id")
    assert json.loads(lines(VALUES, 3, "id").splitlines()[0]) == {"id": 105, "prediction": DICTS[0]}


@pytest.mark.parametrize("names", [('a"b', "c"), ("a\n", "c"), ("\\", "c"), (1, "c"), ("prediction",), ("日本", "")])
def test_columns_of_any_name(names: tuple[Any, ...]) -> None:
    columns = {name: [1, 2] for name in names}
    wanted = [dict.fromkeys(names, value) for value in (1, 2)]
    assert lines(columns, 2) == msgspec.json.Encoder().encode_lines(wanted)


@pytest.mark.parametrize("key", ["id", 'a"b', "é", "c0"])
def test_keys_of_any_name(key: str) -> None:
    assert lines([1, 2], 2, key) == msgspec.json.Encoder().encode_lines(
        [{key: 105, "prediction": 1}, {key: 106, "prediction": 2}]
    )


def test_arrays_are_written_as_their_values() -> None:
    numpy = pytest.importorskip("numpy")
    nan = float("nan")
    for values in (
        [0.1, nan, 1e300],
        [[0.1, 2.0], [nan, -0.0], [float("inf"), 5e-324]],
        [1, 2, 3],
        [True, False, True],
    ):
        assert lines(numpy.array(values), 3) == msgspec.json.Encoder().encode_lines(values)
    assert lines(numpy.array([1, 2]), 2, "id") == lines([1, 2], 2, "id")
    assert lines({"a": numpy.array([0.5, nan])}, 2) == b'{"a":0.5}\n{"a":null}\n'
    assert lines([numpy.float32(0.5), numpy.array([1, 2])], 2) == b"0.5\n[1,2]\n"


def test_frames_are_written_as_dicts() -> None:
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"x": [1, None], "y": ["a", "b"]})
    assert lines(frame, 2) == b'{"x":1,"y":"a"}\n{"x":null,"y":"b"}\n'
    assert lines(frame["x"], 2) == b"1\nnull\n"


def test_tables_are_written_as_dicts() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"x": [1, None], "y": ["a", "b"]})
    assert lines(table, 2) == b'{"x":1,"y":"a"}\n{"x":null,"y":"b"}\n'
    assert lines(table["x"], 2) == b"1\nnull\n"


def test_pandas_frames_are_written_as_dicts() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"x": [1.0, None], "y": ["a", "b"]}, index=[7, 3])
    assert lines(frame, 2) == b'{"x":1.0,"y":"a"}\n{"x":null,"y":"b"}\n'
    assert lines(frame["x"], 2) == b"1.0\nnull\n"


def test_a_model_may_use_its_list_again() -> None:
    used = [1, 2]
    one, rows = encoder(), Rows([])
    first = one.rows(rows, Piece(0, 2, used), 0, 2)  # type: ignore[arg-type]
    used[:] = [3, 4]
    assert (first, one.rows(rows, Piece(2, 4, used), 2, 4)) == (b"1\n2\n", b"3\n4\n")  # type: ignore[arg-type]
