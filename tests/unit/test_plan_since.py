"""A plan of what is new since earlier results: what is said of it, and that it outlives a process."""

from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from tidemill.domain import layout
from tidemill.domain.errors import EnvironmentFailed
from tidemill.domain.life import Reason
from tidemill.domain.location import parse_location
from tidemill.domain.plan import Earlier, Plan, Since, how_finished, load_plan
from tidemill.domain.splits import Cut, Layout
from tidemill.domain.verdict import pause_of
from tidemill_runtime.contract import Counts

OUT = parse_location("/out/", field="output")
EARLIER = Earlier(parse_location("/before/", field="since"), "batch-1", "a" * 64, "b" * 64)
SINCE = Since(EARLIER, OUT.child("all"), 9, 90, "c" * 64, OUT.child("gone"), "d" * 64, 2, 1, 6, 1)
WHOLE = Plan(OUT.child("listing"), 3, 30, 4, 2, Cut.RANGES, Layout.PER_OBJECT, "e" * 64, "jsonl", "a note")
PLAN = replace(WHOLE, since=SINCE)


def test_a_plan_is_read_back_as_it_was_written() -> None:
    assert load_plan(asdict(WHOLE)) == WHOLE
    assert load_plan(asdict(PLAN)) == PLAN


def test_the_whole_input_is_more_than_what_is_computed() -> None:
    assert PLAN.input is SINCE
    assert WHOLE.input is WHOLE


@pytest.mark.parametrize(
    ("since", "words"),
    [
        (SINCE, "since batch-1: 2 objects new, 1 changed, 6 unchanged, 1 deleted"),
        (replace(SINCE, new=1), "since batch-1: 1 object new, 1 changed, 6 unchanged, 1 deleted"),
        (replace(SINCE, new=0, changed=0), "nothing is new since batch-1: 6 objects unchanged, 1 deleted"),
    ],
)
def test_what_is_new_in_words(since: Since, words: str) -> None:
    assert since.words == words


def test_what_a_receipt_says_of_it() -> None:
    assert SINCE.account == {
        "task": "batch-1",
        "path": "/before/",
        "receipt_sha256": "a" * 64,
        "output": "delta",
        "new": 2,
        "changed": 1,
        "unchanged": 6,
        "deleted": 1,
        "deleted_sha256": "d" * 64,
    }
    assert replace(SINCE, earlier=replace(EARLIER, merged=True)).account["output"] == "merged"


def test_how_a_task_that_succeeded_ended() -> None:
    assert how_finished(Counts(3, 3), WHOLE) == (Reason.FINISHED, "")
    reason, told = how_finished(Counts(3, 2, 1), PLAN)
    assert reason is Reason.FINISHED_WITH_FAILED_RECORDS
    assert told == "Since batch-1: 2 objects new, 1 changed, 6 unchanged, 1 deleted."


def test_its_listings_lie_in_staging() -> None:
    names = {layout.whole_listing_name("t"), layout.gone_name("t"), layout.listing_name("t")}
    assert len(names) == 3
    assert all(name.startswith("_tidemill/t/") for name in names)


def test_words_of_an_instance_that_waits() -> None:
    assert pause_of("No space left on device") is Reason.PAUSED_DISK_FULL
    assert pause_of("Object storage does not answer: 503") is Reason.PAUSED_STORAGE


def test_what_the_resolver_said_has_a_log() -> None:
    error = EnvironmentFailed("no such package", log="/logs/x")
    assert (error.message, error.log) == ("no such package", "/logs/x")
