"""The rules of leases and commits, each on one split."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemill.domain.splits import (
    SplitState,
    SplitStatus,
    Verdict,
    accept,
    judge,
    lease,
    may_lease,
    release,
    renew,
)
from tidemill_runtime.contract import Commit, Counts, Cursor, Held


def commit_of(
    split: SplitState, *, begin: Cursor | None = None, end: Cursor | None = None, done: bool = True
) -> Commit:
    begin = split.cursor if begin is None else begin
    return Commit(
        split=split.no,
        fence=split.fence,
        part=split.part or "unknown",
        begin=begin,
        end=Cursor(begin.object, begin.offset + 10) if end is None else end,
        done=done,
        data_bytes=1,
        errors_bytes=0,
        index_bytes=0,
        sha256="",
        counts=Counts(1, 1),
    )


OPEN = SplitState(3)
LEASED = lease(OPEN, "one", "3.1.x", now=100.0, ttl_s=30.0)


def test_an_open_split_may_be_leased_and_a_leased_one_only_when_it_expired() -> None:
    assert may_lease(OPEN, 0.0)
    assert not may_lease(LEASED, 129.9)
    assert may_lease(LEASED, 130.0)
    assert not may_lease(accept(LEASED, commit_of(LEASED)), 1e9)


def test_a_lease_raises_the_fence_and_names_the_part() -> None:
    assert (LEASED.status, LEASED.fence, LEASED.instance, LEASED.part) == (SplitStatus.LEASED, 1, "one", "3.1.x")
    again = lease(LEASED, "two", "3.2.y", now=200.0, ttl_s=30.0)
    assert (again.fence, again.instance, again.lease_until) == (2, "two", 230.0)


def test_renewing_moves_the_expiry_unless_the_lease_is_old() -> None:
    renewed = renew(LEASED, Held(3, 1), 500.0, 30.0)  # expired, but nobody took it
    assert renewed is not None and renewed.lease_until == 530.0
    assert renew(lease(LEASED, "two", "p", 200.0, 30.0), Held(3, 1), 201.0, 30.0) is None
    assert renew(OPEN, Held(3, 0), 1.0, 30.0) is None


def test_a_commit_counts_once() -> None:
    commit = commit_of(LEASED)
    assert judge(LEASED, commit) is Verdict.ACCEPTED
    done = accept(LEASED, commit)
    assert (done.status, done.cursor, done.instance, done.part) == (SplitStatus.DONE, commit.end, None, None)
    assert judge(done, commit, {commit.part}) is Verdict.REPEATED
    assert judge(done, commit) is Verdict.REFUSED


def test_a_partial_commit_leaves_the_rest_open() -> None:
    commit = commit_of(LEASED, done=False)
    rest = accept(LEASED, commit)
    assert (rest.status, rest.cursor, rest.fence) == (SplitStatus.OPEN, commit.end, 1)


@pytest.mark.parametrize(
    "broken",
    [
        replace(commit_of(LEASED), fence=0),
        replace(commit_of(LEASED), part="another"),
        commit_of(LEASED, begin=Cursor(0, 5)),
        commit_of(LEASED, end=Cursor(0, 0), done=False),
    ],
)
def test_a_commit_that_does_not_fit_is_refused(broken: Commit) -> None:
    assert judge(LEASED, broken) is Verdict.REFUSED


def test_a_commit_without_progress_may_end_a_split() -> None:
    assert judge(LEASED, commit_of(LEASED, end=LEASED.cursor, done=True)) is Verdict.ACCEPTED


def test_a_released_split_is_open_at_its_cursor_and_refuses_its_former_owner() -> None:
    at_ten = lease(accept(LEASED, commit_of(LEASED, done=False)), "one", "3.2.y", 100.0, 30.0)
    freed = release(at_ten)
    assert (freed.status, freed.cursor, freed.instance) == (SplitStatus.OPEN, Cursor(0, 10), None)
    assert judge(freed, commit_of(at_ten)) is Verdict.REFUSED


steps = st.lists(
    st.tuples(
        st.sampled_from(["lease", "commit", "finish", "zombie", "repeat", "release", "expire"]), st.integers(1, 5)
    ),
    max_size=40,
)


@given(steps)
def test_the_committed_pieces_of_a_split_are_contiguous_whatever_happens(actions: list[tuple[str, int]]) -> None:
    """Zombies commit under old fences, answers are lost and repeated, instances die: no piece is missing or twice."""
    split, now, pieces = SplitState(0), 0.0, []
    old: list[SplitState] = []
    accepted: dict[str, Commit] = {}

    def try_commit(state: SplitState, size: int, done: bool) -> None:
        nonlocal split
        commit = commit_of(state, end=Cursor(0, state.cursor.offset + size), done=done)
        if judge(split, commit, set(accepted)) is Verdict.ACCEPTED:
            pieces.append((commit.begin, commit.end))
            accepted[commit.part] = commit
            split = accept(split, commit)

    for action, size in actions:
        now += 1
        if action == "lease" and may_lease(split, now):
            split = lease(split, f"i{now}", f"p{split.fence + 1}", now, 3.0)
            old.append(split)
        elif action in ("commit", "finish") and split.status is SplitStatus.LEASED:
            try_commit(split, size, action == "finish")
        elif action == "zombie" and old:
            try_commit(old[size % len(old)], size, size == 1)
        elif action == "repeat" and accepted:
            again = list(accepted.values())[size % len(accepted)]
            assert judge(split, again, set(accepted)) is Verdict.REPEATED
        elif action == "release" and split.status is SplitStatus.LEASED:
            split = release(split)
        elif action == "expire":
            now += 3
    ends = [Cursor(), *(end for _, end in pieces)]
    assert [begin for begin, _ in pieces] == ends[:-1]
    assert split.cursor == ends[-1]
