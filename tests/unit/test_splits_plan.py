"""Splits as they are planned: whatever the listing, all is covered once, in order, in pieces of a sane size."""

from __future__ import annotations

from itertools import groupby, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.domain.splits import (
    GROUP_BYTES_MIN,
    GROUP_FILES,
    GROUP_SHARE,
    LAST_BYTES_MAX,
    LAST_SHARE,
    PART_FILES,
    SPLIT_BYTES_MAX,
    SPLIT_BYTES_MIN,
    SPLITS_EACH,
    SPLITS_MAX,
    Cut,
    Layout,
    ListedObject,
    PlannedSplit,
    plan_splits,
)

sizes_lists = st.lists(
    st.one_of(st.integers(0, 200), st.integers(0, 100_000), st.integers(0, 200 * 1024 * 1024)), max_size=80
)


def listing_of(sizes: list[int]) -> list[ListedObject]:
    listing, at = [], 0
    for ordinal, size in enumerate(sizes):
        line = 40 + len(str(ordinal))
        listing.append(ListedObject(ordinal, f"{ordinal:05d}.jsonl", size, "etag", at, at + line))
        at += line
    return listing


def planned(sizes: list[int], cut: Cut, layout: Layout = Layout.PER_OBJECT, processes: int = 8) -> list[PlannedSplit]:
    totals = {"total_objects": len(sizes), "total_bytes": sum(sizes), "processes": processes}
    return list(plan_splits(listing_of(sizes), cut, layout, **totals))


@given(sizes_lists, st.sampled_from(Cut), st.sampled_from(Layout))
def test_every_byte_of_every_object_is_in_exactly_one_split(sizes: list[int], cut: Cut, layout: Layout) -> None:
    listing = listing_of(sizes)
    covered: list[tuple[int, int, int]] = []
    for split in planned(sizes, cut, layout):
        objects = listing[split.first_object : split.first_object + split.objects]
        assert (split.listing_start, split.listing_stop) == (objects[0].listing_start, objects[-1].listing_stop)
        if split.stop == -1:
            assert split.start == 0
            covered.extend((each.ordinal, 0, each.size) for each in objects)
            assert split.bytes == sum(each.size for each in objects)
        else:
            assert split.objects == 1 and split.start < split.stop
            covered.append((split.first_object, split.start, split.stop))
            assert split.bytes == split.stop - split.start
    for ordinal, pieces in groupby(covered, key=lambda piece: piece[0]):
        ranges = [(start, stop) for _, start, stop in pieces]
        assert ranges[0][0] == 0 and ranges[-1][1] == sizes[ordinal]
        assert all(before[1] == after[0] for before, after in pairwise(ranges))
    assert [ordinal for ordinal, _ in groupby(covered, key=lambda piece: piece[0])] == list(range(len(sizes)))


@given(sizes_lists, st.sampled_from(Cut), st.sampled_from(Layout))
def test_splits_are_numbered_and_units_never_step_back_or_skip(sizes: list[int], cut: Cut, layout: Layout) -> None:
    splits = planned(sizes, cut, layout)
    assert [split.no for split in splits] == list(range(len(splits)))
    units = [split.unit for split in splits]
    assert units == sorted(units)
    assert sorted(set(units)) == list(range(len(set(units))))


@given(sizes_lists, st.sampled_from(Cut), st.sampled_from(Layout))
def test_an_object_never_spans_units(sizes: list[int], cut: Cut, layout: Layout) -> None:
    home: dict[int, int] = {}
    for split in planned(sizes, cut, layout):
        for ordinal in range(split.first_object, split.first_object + split.objects):
            assert home.setdefault(ordinal, split.unit) == split.unit


@given(sizes_lists)
def test_only_ranges_cut_objects(sizes: list[int]) -> None:
    for cut in (Cut.WHOLE, Cut.FILES):
        assert all(split.stop == -1 for split in planned(sizes, cut))


@given(sizes_lists, st.sampled_from((Cut.RANGES, Cut.GROUPS)))
def test_each_split_is_a_part_of_what_is_left(sizes: list[int], cut: Cut) -> None:
    total = left = sum(sizes)
    least, share = (SPLIT_BYTES_MIN, LAST_SHARE) if cut is Cut.RANGES else (GROUP_BYTES_MIN, GROUP_SHARE)
    floor = max(least, min(LAST_BYTES_MAX, total // share))
    for split in planned(sizes, cut):
        assert split.bytes <= max(floor, min(SPLIT_BYTES_MAX, left // (8 * SPLITS_EACH)))
        assert split.objects <= GROUP_FILES
        left -= split.bytes
    assert left == 0


@given(st.lists(st.integers(0, 100_000), max_size=300))
def test_files_that_are_records_taper_by_their_number(sizes: list[int]) -> None:
    left = len(sizes)
    for split in planned(sizes, Cut.FILES, Layout.PARTS):
        assert split.objects <= max(1, left // (8 * SPLITS_EACH))
        left -= split.objects
    assert left == 0


@pytest.mark.parametrize("total", [10**power for power in (3, 6, 8, 9, 10, 12, 15)])
def test_the_number_of_splits_is_bounded_and_the_last_are_small(total: int) -> None:
    splits = planned([total], Cut.RANGES)
    assert len(splits) < total / SPLIT_BYTES_MAX + 250
    assert len(splits) < SPLITS_MAX + 1000
    assert splits[-1].bytes <= LAST_BYTES_MAX


def test_a_single_layout_is_one_unit() -> None:
    splits = planned([10, 50_000_000, 10], Cut.RANGES, Layout.SINGLE)
    assert {split.unit for split in splits} == {0}


@pytest.mark.parametrize("processes", [1, 2, 40, 1000])
def test_parts_hold_the_same_files_whoever_works_on_them(processes: int) -> None:
    splits = planned([1] * 20_001, Cut.FILES, Layout.PARTS, processes)
    files: dict[int, int] = {}
    for split in splits:
        files[split.unit] = files.get(split.unit, 0) + split.objects
        assert split.objects <= GROUP_FILES
    assert list(files.values()) == [PART_FILES] * 5 + [1]
    assert len(splits) < 20_001 // GROUP_FILES + 15 * SPLITS_EACH * processes


def test_few_files_that_are_records_are_spread() -> None:
    assert [split.objects for split in planned([1] * 60, Cut.FILES, Layout.PARTS)] == [1] * 60
    assert [split.objects for split in planned([1] * 640, Cut.FILES, Layout.PARTS)][:3] == [20, 19, 18]


@pytest.mark.parametrize("processes", [2, 7, 32])
def test_processes_end_together(processes: int) -> None:
    """Each takes the next split when it is free: none waits long for the last one."""
    free_at = [0] * processes
    for split in planned([10_000_000], Cut.RANGES, processes=processes):
        first = min(range(processes), key=free_at.__getitem__)
        free_at[first] += split.bytes
    assert max(free_at) < 1.02 * 10_000_000 / processes


def test_a_small_input_is_spread_over_many_splits() -> None:
    assert 100 < len(planned([1_000_000], Cut.RANGES)) < 200
    assert 32 < len(planned([3_000], Cut.RANGES)) < 50
    assert len(planned([60], Cut.RANGES)) == 1
    assert 32 < len(planned([1_000_000], Cut.GROUPS)) < 70
    assert len(planned([10_000], Cut.GROUPS)) == 1


def test_a_large_object_closes_the_group_before_it() -> None:
    splits = planned([10, 10, 2**30, 10], Cut.RANGES)
    assert (splits[0].objects, splits[0].unit) == (2, 0)
    assert {split.unit for split in splits[1:-1]} == {1}
    assert (splits[-1].first_object, splits[-1].unit) == (3, 2)


@pytest.mark.parametrize("cut", list(Cut))
def test_empty_objects_are_grouped_and_an_empty_listing_has_no_split(cut: Cut) -> None:
    assert planned([], cut) == []
    assert sum(split.objects for split in planned([0, 0, 0], cut)) == 3


def test_a_million_objects_are_planned_as_a_stream() -> None:
    source = (ListedObject(n, "x", 10, "e", n * 40, n * 40 + 40) for n in range(1_000_000))
    splits = plan_splits(
        source, Cut.RANGES, Layout.PER_OBJECT, total_objects=1_000_000, total_bytes=10_000_000, processes=2
    )
    assert next(splits).objects == GROUP_FILES
    assert next(source).ordinal == GROUP_FILES + 1  # no further than the split that was asked for
