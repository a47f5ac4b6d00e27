"""Whether CSV may be cut, as far as a look at it shows, and what is said where nothing is."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidemill.domain.location import parse_location
from tidemill.objects.region import open_region
from tidemill.planning import cutting
from tidemill.planning.cutting import spans_lines, uncut_note
from tidemill_runtime.contract import InputFormat

PLAIN = "12345,some words,0.25\n" * 80_000


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        (PLAIN, False),
        (PLAIN.replace("some words", '"some, words"'), False),
        (PLAIN.replace("some words", 'a 5" disk'), False),
        ("id,text,x\n" + PLAIN[:1_000_000] + '1,"two\nlines",3\n' * 60_000, True),
        (PLAIN[:1_000_000] + '1,"' + "a long text\n" * 60_000 + '",2\n', True),
    ],
    ids=["plain", "quotes", "inches", "further-on", "one-long-row"],
)
def test_windows_show_rows_of_several_lines(tmp_path: Path, text: str, spans: bool) -> None:
    (tmp_path / "small.csv").write_text('a\n"x\ny"\n')  # too small to be cut
    (tmp_path / "large.csv").write_text(text)
    objects = open_region({}, tmp_path, local_paths=True)
    folder = parse_location(f"{tmp_path}/", field="input")
    assert spans_lines(objects, folder, list(objects.list(folder)), InputFormat("csv")) is spans


def test_what_is_said() -> None:
    assert uncut_note(0, 3, "gzip cannot be cut") == ""
    assert uncut_note(1, 1, "gzip cannot be cut") == "the input runs whole in a single process: gzip cannot be cut"
    assert uncut_note(2, 3, "x") == "2 of 3 objects run whole, each in a single process: x"


def test_small_objects_are_not_spoken_of() -> None:
    assert not cutting.worth_cutting(100_000, 100_000)
    assert cutting.worth_cutting(20_000_000, 20_000_000)
