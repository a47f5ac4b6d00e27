"""Every pair of states against the picture of a task's life, and what is said of each reason."""

from __future__ import annotations

import itertools

import pytest

from tidemill.domain.errors import IllegalTransition
from tidemill.domain.life import (
    EXPLANATIONS,
    FINAL,
    INSTANCE_FINAL,
    RESUMABLE,
    InstanceStatus,
    Reason,
    TaskStatus,
    change,
    explain,
)

# Written out a second time on purpose: a slip of the hand in the table shows here.
TASK_LIFE = {
    "INIT": "STARTING STOPPING FAILED SUBMIT_FAILED",
    "STARTING": "RUNNING STOPPING FAILED",
    "RUNNING": "STOPPING SUCCEED FAILED",
    "STOPPING": "STOPPED FAILED",
}
INSTANCE_LIFE = {
    "PENDING": "STARTING RUNNING STOPPING ENDED FAILED LOST",
    "STARTING": "RUNNING STOPPING ENDED FAILED LOST",
    "RUNNING": "STOPPING ENDED FAILED LOST",
    "STOPPING": "ENDED FAILED LOST",
}


@pytest.mark.parametrize(("old", "new"), list(itertools.product(TaskStatus, TaskStatus)))
def test_every_pair_of_a_task(old: TaskStatus, new: TaskStatus) -> None:
    if new in TASK_LIFE.get(old, "").split():
        assert change(old, new) is new
    else:
        with pytest.raises(IllegalTransition, match=f"TaskStatus cannot change from {old} to {new}"):
            change(old, new)


@pytest.mark.parametrize(("old", "new"), list(itertools.product(InstanceStatus, InstanceStatus)))
def test_every_pair_of_an_instance(old: InstanceStatus, new: InstanceStatus) -> None:
    if new in INSTANCE_LIFE.get(old, "").split():
        assert change(old, new) is new
    else:
        with pytest.raises(IllegalTransition, match=f"InstanceStatus cannot change from {old} to {new}"):
            change(old, new)


def test_ends() -> None:
    assert sorted(FINAL) == ["FAILED", "STOPPED", "SUBMIT_FAILED", "SUCCEED"]
    assert sorted(INSTANCE_FINAL) == ["ENDED", "FAILED", "LOST"]
    assert RESUMABLE < FINAL


def test_every_reason_has_words() -> None:
    assert set(EXPLANATIONS) == set(Reason)
    for reason in set(Reason) - {Reason.NONE}:
        assert explain(reason).endswith("."), reason


def test_the_detail_stands_between_what_happened_and_what_to_do() -> None:
    assert explain(Reason.DISK_FULL, "0 bytes on /data.") == (
        "No space is left. 0 bytes on /data. Make room, then resume it."
    )
    assert explain(Reason.MODEL_ALWAYS_FAILS, "The first: KeyError: 'text'") == (
        "Each of the first records failed. The first: KeyError: 'text'. "
        "Fix the model, or set `format` where it is the records that are not read."
    )
    assert explain(Reason.MODEL_LOAD_FAILED, "no weights") == (
        "Loading the model failed: no weights. The log has what it printed."
    )
    assert explain(Reason.NONE) == ""
