"""The life of tasks, runs and instances: one transition table each, and the reasons that explain a status.

A task's status is its latest run's. Only `change` decides whether a status may follow another; whoever stores the new
status writes the event in the same transaction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from tidemill.domain.errors import IllegalTransition


class TaskStatus(StrEnum):
    """Of a run, and so of its task. The names are the wire's."""

    INIT = "INIT"  # accepted; being planned or waiting for capacity
    STARTING = "STARTING"  # instances are being placed, no model has loaded yet
    RUNNING = "RUNNING"  # a model has loaded, or the user's command has started
    STOPPING = "STOPPING"
    STOPPED = "STOPPED"
    SUCCEED = "SUCCEED"
    FAILED = "FAILED"
    SUBMIT_FAILED = "SUBMIT_FAILED"  # could not be planned: nothing was started


class InstanceStatus(StrEnum):
    PENDING = "PENDING"  # a row, not yet seen by the engine
    STARTING = "STARTING"  # placed; the model is not loaded yet
    RUNNING = "RUNNING"
    STOPPING = "STOPPING"  # told to stop
    ENDED = "ENDED"  # exited as it should
    FAILED = "FAILED"  # reported a fault, or died
    LOST = "LOST"  # the engine knows nothing of it any more


_T = TaskStatus
TASK_TRANSITIONS: dict[TaskStatus, frozenset[TaskStatus]] = {
    _T.INIT: frozenset({_T.STARTING, _T.STOPPING, _T.FAILED, _T.SUBMIT_FAILED}),
    _T.STARTING: frozenset({_T.RUNNING, _T.STOPPING, _T.FAILED}),
    _T.RUNNING: frozenset({_T.STOPPING, _T.SUCCEED, _T.FAILED}),
    _T.STOPPING: frozenset({_T.STOPPED, _T.FAILED}),
    _T.STOPPED: frozenset(),
    _T.SUCCEED: frozenset(),
    _T.FAILED: frozenset(),
    _T.SUBMIT_FAILED: frozenset(),
}
_I = InstanceStatus
INSTANCE_TRANSITIONS: dict[InstanceStatus, frozenset[InstanceStatus]] = {
    _I.PENDING: frozenset({_I.STARTING, _I.RUNNING, _I.STOPPING, _I.ENDED, _I.FAILED, _I.LOST}),
    _I.STARTING: frozenset({_I.RUNNING, _I.STOPPING, _I.ENDED, _I.FAILED, _I.LOST}),
    _I.RUNNING: frozenset({_I.STOPPING, _I.ENDED, _I.FAILED, _I.LOST}),
    _I.STOPPING: frozenset({_I.ENDED, _I.FAILED, _I.LOST}),
    _I.ENDED: frozenset(),
    _I.FAILED: frozenset(),
    _I.LOST: frozenset(),
}
FINAL = frozenset(status for status, following in TASK_TRANSITIONS.items() if not following)
INSTANCE_FINAL = frozenset(status for status, following in INSTANCE_TRANSITIONS.items() if not following)
RESUMABLE = frozenset({_T.STOPPED, _T.FAILED})


S = TypeVar("S", TaskStatus, InstanceStatus)
_TABLES: dict[type, Mapping[Any, frozenset[Any]]] = {
    TaskStatus: TASK_TRANSITIONS,
    InstanceStatus: INSTANCE_TRANSITIONS,
}


def change(old: S, new: S) -> S:
    """`new`, if it may follow `old`. Raises IllegalTransition otherwise (also where nothing changes)."""
    table = _TABLES[type(old)]
    if new not in table[old]:
        raise IllegalTransition(f"{type(old).__name__} cannot change from {old} to {new}.")
    return new


class Reason(StrEnum):
    """Why a run or an instance is in its status. `explain` says it in words."""

    NONE = ""
    # waiting
    WAITING_FOR_CAPACITY = "waiting_for_capacity"
    INSTALLING = "installing"
    PAUSED_STORAGE = "paused_storage"
    PAUSED_DISK_FULL = "paused_disk_full"
    # good ends
    FINISHED = "finished"
    FINISHED_WITH_FAILED_RECORDS = "finished_with_failed_records"
    # stopped
    STOPPED_BY_USER = "stopped_by_user"
    DEADLINE = "deadline"
    INTERRUPTED = "interrupted"
    DISK_FULL = "disk_full"
    # failed
    PLAN_FAILED = "plan_failed"
    INPUT_CHANGED = "input_changed"
    OUTPUT_TAKEN = "output_taken"
    MODEL_NOT_FOUND = "model_not_found"
    ENVIRONMENT_FAILED = "environment_failed"
    MODEL_LOAD_FAILED = "model_load_failed"
    MISSING_MODULE = "missing_module"
    MODEL_ALWAYS_FAILS = "model_always_fails"
    TOO_MANY_FAILED_RECORDS = "too_many_failed_records"
    FORMAT_MISMATCH = "format_mismatch"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"
    STORAGE_FAILED = "storage_failed"
    RESULT_DAMAGED = "result_damaged"
    INTERNAL = "internal"


PAUSED = frozenset({Reason.PAUSED_STORAGE, Reason.PAUSED_DISK_FULL})
"""Why something waits that goes on by itself."""


@dataclass(frozen=True)
class Explanation:
    """What to tell people: one sentence and what to do. retry: whether a replacement of the instance may help."""

    sentence: str
    remedy: str = ""
    retry: bool = False


_R = Reason
EXPLANATIONS: dict[Reason, Explanation] = {
    _R.NONE: Explanation(""),
    _R.WAITING_FOR_CAPACITY: Explanation("Waits for free capacity.", "It starts by itself."),
    _R.INSTALLING: Explanation("The model's requirements are being installed."),
    _R.PAUSED_STORAGE: Explanation("Object storage does not answer.", "It goes on by itself.", retry=True),
    _R.PAUSED_DISK_FULL: Explanation("No space is left.", "Make room; it goes on by itself.", retry=True),
    _R.FINISHED: Explanation("All records were predicted."),
    _R.FINISHED_WITH_FAILED_RECORDS: Explanation(
        "Finished, but some records failed.", "errors.jsonl in the output folder says which and why."
    ),
    _R.STOPPED_BY_USER: Explanation("Stopped on request.", "Resume it to compute what is missing."),
    _R.DEADLINE: Explanation("The deadline passed.", "Resume it with a later deadline or more instances."),
    _R.INTERRUPTED: Explanation("Interrupted.", "Resume it to compute what is missing."),
    _R.DISK_FULL: Explanation("No space is left.", "Make room, then resume it."),
    _R.PLAN_FAILED: Explanation("The input could not be listed and planned."),
    _R.INPUT_CHANGED: Explanation(
        "An input object changed during the run.", "Start a new task over the input as it is now."
    ),
    _R.OUTPUT_TAKEN: Explanation("The output folder belongs to another task.", "Choose another output folder."),
    _R.MODEL_NOT_FOUND: Explanation(
        "There is no model that can be called.", "Check the package, or the function or command of the task."
    ),
    _R.ENVIRONMENT_FAILED: Explanation(
        "The model's requirements could not be installed.", "Change requirements.txt, or make the package available."
    ),
    _R.MODEL_LOAD_FAILED: Explanation("Loading the model failed.", "The log has what it printed."),
    _R.MISSING_MODULE: Explanation(
        "A module that the model imports is not installed.", "Add it to requirements.txt or to the image."
    ),
    _R.MODEL_ALWAYS_FAILS: Explanation(
        "Each of the first records failed.", "Fix the model, or set `format` where it is the records that are not read."
    ),
    _R.TOO_MANY_FAILED_RECORDS: Explanation(
        "More records failed than the task tolerates.",
        "Fix the model or the data and start anew, or resume with a higher tolerance.",
    ),
    _R.FORMAT_MISMATCH: Explanation("The input is not in the format it was read as.", "Set `format` in the task."),
    _R.OUT_OF_MEMORY: Explanation(
        "Out of memory, even with a mini-batch of one record.", "Give the task more memory.", retry=False
    ),
    _R.CRASHED: Explanation("Instances died more often than `retries` allows.", "See the log.", retry=True),
    _R.STORAGE_FAILED: Explanation(
        "Object storage refuses.", "Check the region's credentials and the paths.", retry=True
    ),
    _R.RESULT_DAMAGED: Explanation("A committed part is missing or damaged.", "Start the task anew."),
    _R.INTERNAL: Explanation("An error inside Tidemill.", "See the server's log.", retry=True),
}


def explain(reason: Reason, detail: str = "") -> str:
    """The reason in words, with the detail (evidence) and what to do."""
    told = EXPLANATIONS[reason]
    ended = f"{detail}." if detail and detail[-1] not in ".!?…" else detail
    if told.sentence and detail[:1].islower():  # not a sentence of its own
        return " ".join(part for part in (f"{told.sentence[:-1]}: {ended}", told.remedy) if part)
    return " ".join(part for part in (told.sentence, ended, told.remedy) if part)
