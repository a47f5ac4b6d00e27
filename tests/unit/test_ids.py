"""Identifiers sort by time, are unlike each other, and name what they belong to."""

from __future__ import annotations

import re

from tidemill.domain.ids import TaskId, instance_id, new_model_id, new_task_id, new_version_id, run_id


def test_identifiers_sort_by_time() -> None:
    made = [new_task_id(now_ms) for now_ms in (0, 1, 31, 32, 1_000_000, 1_790_000_000_000, 35_000_000_000_000)]
    assert made == sorted(made)
    assert all(re.fullmatch(r"batch-[0-9a-hjkmnp-tv-z]{16}", each) for each in made)


def test_identifiers_of_one_millisecond_differ() -> None:
    assert len({new_task_id(5) for _ in range(1000)}) == 1000


def test_a_run_and_its_instances_are_named_after_the_task() -> None:
    run = run_id(TaskId("batch-x"), 2)
    assert (run, instance_id(run, 0, 3)) == ("batch-x-r2", "batch-x-r2-0-a3")


def test_models_and_versions_have_prefixes_of_their_own() -> None:
    assert (new_model_id(1)[:2], new_version_id(1)[:3]) == ("m-", "mv-")
