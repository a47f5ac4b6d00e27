"""From a folder to a listing and splits: the same each time, as a stream, and what the listing says is what is read."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidemill.domain.errors import InvalidValue, NotAllowed, PartDamaged
from tidemill.domain.location import Location
from tidemill.domain.splits import Layout
from tidemill.objects import local
from tidemill.objects.listing import listing_line, parse_listing, read_listing
from tidemill.objects.local import LocalObjects
from tidemill.planning.check import check_task
from tidemill.planning.plan import listed_inputs, make_plan
from tidemill.ports.objects import ObjectInfo
from tidemill.wire.taskfile import TaskFile, parse_task


def task_of(root: Path, **changes: object) -> TaskFile:
    return parse_task({"name": "t", "model": "m", "input": f"{root}/in/", "output": f"{root}/out", **changes})


def make(root: Path, **changes: object):
    objects = LocalObjects(None)
    checked = check_task(task_of(root, **changes), objects, base=None, local_paths=True)
    return objects, checked, make_plan(objects, checked, "batch-1", processes=8)


def write(root: Path, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        path = root / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((b'{"x": 1}\n' * (size // 9 + 1))[:size])


def test_the_listing_is_sorted_and_the_splits_point_into_it(tmp_path: Path) -> None:
    write(tmp_path, {"b.jsonl": 9, "a/z 一.jsonl": 300_000, "a.jsonl": 18, "_SUCCESS": 1, "c#%+.jsonl": 0})
    objects, checked, (plan, splits) = make(tmp_path)
    listed = list(read_listing(objects, plan.listing))
    assert [each.name for each in listed] == ["a.jsonl", "a/z 一.jsonl", "b.jsonl", "c#%+.jsonl"]
    assert (plan.objects, plan.bytes, plan.splits) == (4, 300_027, len(splits))
    assert plan.units == splits[-1].unit + 1
    text = objects.read(plan.listing)
    assert plan.listing_sha256 == hashlib.sha256(text).hexdigest()
    for split in splits:
        of_split = list(
            read_listing(
                objects, plan.listing, split.listing_start, split.listing_stop, first_ordinal=split.first_object
            )
        )
        assert of_split == listed[split.first_object : split.first_object + split.objects]
        assert of_split[0].etag == objects.head(checked.input.child(of_split[0].name)).etag  # type: ignore[union-attr]


def test_planning_again_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path, {"a.jsonl": 500_000, "b.jsonl": 5})
    assert make(tmp_path)[2] == make(tmp_path)[2]


def test_one_object_is_a_folder_of_one(tmp_path: Path) -> None:
    write(tmp_path, {"a.jsonl": 9, "b.jsonl": 9})
    objects, checked, (plan, _) = make(tmp_path, input=f"{tmp_path}/in/b.jsonl")
    assert [each.name for each in read_listing(objects, plan.listing)] == ["b.jsonl"]
    assert str(checked.input_folder) == f"{tmp_path}/in/"


def test_a_format_that_is_mixed_further_on_is_found_while_planning(tmp_path: Path) -> None:
    write(tmp_path, {f"{n:04d}.jsonl": 9 for n in range(300)} | {"zz.csv": 5})
    with pytest.raises(InvalidValue, match=r"'0000\.jsonl' and 'zz\.csv'"):
        make(tmp_path)


def test_what_vanished_since_the_check(tmp_path: Path) -> None:
    write(tmp_path, {"a.jsonl": 9})
    objects = LocalObjects(None)
    checked = check_task(task_of(tmp_path), objects, base=None, local_paths=True)
    (tmp_path / "in/a.jsonl").unlink()
    with pytest.raises(InvalidValue, match=r"input\.path"):
        make_plan(objects, checked, "batch-1", processes=8)


def test_a_name_that_no_result_could_have(tmp_path: Path) -> None:
    write(tmp_path, {"x" * 245 + ".jsonl": 9})
    with pytest.raises(InvalidValue, match="255"):
        make(tmp_path)


def test_local_paths_can_be_forbidden(tmp_path: Path) -> None:
    with pytest.raises(NotAllowed, match=r"input\.path"):
        check_task(task_of(tmp_path), LocalObjects(None), base=None, local_paths=False)


class Lake(LocalObjects):
    """A folder of very many objects that are nowhere, listed as a store does it: page after page."""

    def __init__(self, count: int) -> None:
        super().__init__(None)
        self.count = count
        self.listed = 0

    def list(self, folder: Location, after: str = "") -> Iterator[ObjectInfo]:
        if not folder.key.startswith("/lake/"):
            yield from super().list(folder)
            return
        for number in range(self.count):
            self.listed += 1
            yield ObjectInfo(f"{number:07d}.jsonl", 100, "etag", 0.0)

    def read(self, location: Location, start: int = 0, stop: int | None = None) -> bytes:
        return b'{"x": 1}\n' if location.key.startswith("/lake/") else super().read(location, start, stop)

    def is_folder(self, location: Location) -> bool:
        return location.key.startswith("/lake/") or super().is_folder(location)


def test_a_hundred_thousand_objects_and_the_check_looks_at_few(tmp_path: Path) -> None:
    lake = Lake(100_000)
    checked = check_task(task_of(tmp_path, input="/lake/"), lake, base=None, local_paths=True)
    assert lake.listed <= 200
    seen: list[int] = []
    plan, splits = make_plan(lake, checked, "batch-1", processes=8, tick=seen.append)
    assert (plan.objects, plan.bytes) == (100_000, 10_000_000)
    assert 100_000 // 250 <= len(splits) < 100_000 // 250 + 150  # the last ones are small
    assert seen == list(range(1000, 100_001, 1000))


def test_memory_does_not_grow_with_the_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "CHUNK_BYTES", 32 * 1024)  # so that both listings are many chunks
    peaks = []
    for count in (3_000, 9_000):
        lake = Lake(count)
        checked = check_task(task_of(tmp_path, input="/lake/"), lake, base=None, local_paths=True)
        tracemalloc.start()
        make_plan(lake, checked, "batch-1", processes=8)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 100_000  # 17 bytes an object


def test_a_tick_may_end_it(tmp_path: Path) -> None:
    lake = Lake(5000)
    checked = check_task(task_of(tmp_path, input="/lake/"), lake, base=None, local_paths=True)

    def tick(listed: int) -> None:
        if listed == 2000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_plan(lake, checked, "batch-1", processes=8, tick=tick)
    assert not (tmp_path / "out/_tidemill/batch-1/listing.jsonl").exists()


names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=10)
infos = st.lists(st.builds(ObjectInfo, names, st.integers(0, 2**50), names, st.just(0.0)), max_size=20)


@given(infos, st.integers(1, 50))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_a_listing_reads_back_whatever_the_chunks(listed: list[ObjectInfo], step: int) -> None:
    lines = [listing_line(info) for info in listed]
    text = b"".join(lines)
    chunks: Iterable[bytes] = (text[at : at + step] for at in range(0, len(text), step))
    found = list(parse_listing(chunks, 7, 3))
    assert [(each.name, each.size, each.etag) for each in found] == [
        (each.name, each.size, each.etag) for each in listed
    ]
    assert [each.ordinal for each in found] == list(range(3, 3 + len(listed)))
    assert [text[each.listing_start - 7 : each.listing_stop - 7] for each in found] == lines


@pytest.mark.parametrize("text", [b"{}\n", b"not json\n", b'{"name":"a","size":1,"etag":"e"}', b"[1]\n"])
def test_a_damaged_listing_is_told(text: bytes) -> None:
    with pytest.raises(PartDamaged, match="at byte 5"):
        list(parse_listing([text], 5, 0))


def test_listed_inputs_of_one_object_that_is_gone(tmp_path: Path) -> None:
    write(tmp_path, {"a.jsonl": 9})
    objects, checked, _ = make(tmp_path, input=f"{tmp_path}/in/a.jsonl")
    (tmp_path / "in/a.jsonl").unlink()
    assert list(listed_inputs(objects, checked)) == []
    assert checked.formats.layout is Layout.PER_OBJECT
    assert json.loads(listing_line(ObjectInfo("\udcff", 1, "e", 0.0)))["name"] == "\udcff"
