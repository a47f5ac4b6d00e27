"""Two sorted listings walked through at once: what is new, changed, unchanged and deleted."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.domain.errors import Conflict
from tidemill.domain.location import Location
from tidemill.domain.plan import Earlier
from tidemill.objects.listing import listing_line, name_order, paired, whole_lines
from tidemill.objects.region import open_region
from tidemill.planning.only_new import Sieve
from tidemill.ports.objects import ObjectInfo

NAMES = st.text(st.characters(exclude_characters="\0"), min_size=1, max_size=4)
INPUTS = st.dictionaries(NAMES, st.tuples(st.integers(0, 3), st.sampled_from(["a", "b"])), max_size=12)


def rows(found: dict[str, tuple[int, str]]) -> list[ObjectInfo]:
    return [ObjectInfo(name, *found[name], 0.0) for name in sorted(found, key=name_order)]


def ordered(found: dict[str, int]) -> Iterator[tuple[str, int]]:
    return iter(sorted(found.items()))


@given(st.dictionaries(NAMES, st.integers(0, 2)), st.dictionaries(NAMES, st.integers(0, 2)))
def test_pairs_are_those_of_the_same_key(before: dict[str, int], now: dict[str, int]) -> None:
    found = list(paired(ordered(before), ordered(now), lambda each: each[0]))
    assert [old for old, _ in found if old is not None] == list(ordered(before))
    assert [new for _, new in found if new is not None] == list(ordered(now))
    assert {old[0] for old, new in found if old and new} == before.keys() & now.keys()
    assert all(old[0] == new[0] for old, new in found if old and new)


@given(st.binary(), st.lists(st.integers(0, 40)))
def test_lines_do_not_depend_on_chunks(data: bytes, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    chunks = [data[start:stop] for start, stop in pairwise(places)]
    found = list(whole_lines(chunks))
    assert b"".join(found) == data
    assert all(line.endswith(b"\n") and line.count(b"\n") == 1 for line in found[:-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("earlier")


def sieve(folder: Path, text: bytes, digest: str | None = None) -> Sieve:
    (folder / "_inputs.jsonl").write_bytes(text)
    place = Location("file", None, f"{folder}/")
    known = digest or hashlib.sha256(text).hexdigest()
    return Sieve(open_region({}, folder, local_paths=True), Earlier(place, "batch-1", "", known))


@given(before=INPUTS, now=INPUTS)
def test_what_is_new(folder: Path, before: dict[str, tuple[int, str]], now: dict[str, tuple[int, str]]) -> None:
    lines = [listing_line(each) for each in rows(now)]
    with closing(sieve(folder, b"".join(map(listing_line, rows(before))))) as made:
        assert list(made.pass_on(lines)) == lines
        data, digest = made.fresh()
        fresh, gone = b"".join(data), b"".join(made.gone())
    names = [json.loads(line)["name"] for line in fresh.splitlines()]
    assert names == [each.name for each in rows(now) if before.get(each.name) != now[each.name]]
    assert digest == hashlib.sha256(fresh).hexdigest()
    assert gone == b"".join(listing_line(each) for each in rows(before) if each.name not in now)
    same = {name for name in before.keys() & now.keys() if before[name] == now[name]}
    assert (made.new, made.changed) == (len(now.keys() - before.keys()), len(before.keys() & now.keys()) - len(same))
    assert (made.unchanged, made.deleted) == (len(same), len(before.keys() - now.keys()))
    assert made.fresh_bytes == sum(now[name][0] for name in names)


def test_a_listing_that_was_changed_is_refused(folder: Path) -> None:
    line = listing_line(ObjectInfo("a", 1, "e", 0.0))
    with closing(sieve(folder, line, "0" * 64)) as made, pytest.raises(Conflict, match="receipt beside it"):
        list(made.pass_on([line]))
