"""`tidemill replay`, without the printing: find the task and the record, run it, compare. Called by the CLI."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tidemill.domain.errors import InvalidValue, NotFound
from tidemill.domain.location import parse_location
from tidemill.engines.machine import machine_resources
from tidemill.local.environment import RunEnvironment, look_at
from tidemill.objects.region import open_region
from tidemill.replaying.child import ReplayChildren
from tidemill.replaying.model import UsedModel, find_model
from tidemill.replaying.record import Wanted, find_record
from tidemill.replaying.stored import Stored, apart, find_stored, same_failure
from tidemill.replaying.task import AskedFor, Task, has_receipt, read_finished, read_unfinished
from tidemill.settings import Settings
from tidemill_runtime.contract import CONTRACT_VERSION, Channel, InputObject, Manifest, Pins

_GRANT_S = 24 * 3600.0
"""For a record at the end of a large object, and for somebody who thinks at pdb's prompt."""
_RETRY_S = 10.0
TOLERANCE = 1e-6


class Verdict(StrEnum):
    """What a replay showed."""

    SAME = "same"
    DIFFERS = "differs"
    NOT_COMPARED = "not_compared"
    RECOVERED = "recovered"  # it failed, and has a prediction now
    FAILS_THE_SAME = "fails_the_same"
    FAILS_OTHERWISE = "fails_otherwise"
    FAILS_NOW = "fails_now"  # it had a prediction
    FAILS = "fails"  # and what it did in the task is not known


GOOD = (Verdict.SAME, Verdict.RECOVERED, Verdict.NOT_COMPARED)


@dataclass(frozen=True)
class Asked:
    """A replay as asked for. folder: of the task's output. record, error: one of the two. task: as it was asked for,
    where the folder need not have a receipt. model, code: folders. env: values of variables, besides those that `task`
    has. debug: open pdb where the model raises.
    """

    folder: str
    record: str | None = None
    error: int | None = None
    model: str | None = None
    code: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    task: AskedFor | None = None
    tolerance: float = TOLERANCE
    debug: bool = False


@dataclass(frozen=True)
class Replayed:
    """place: of the record. input: its text, shortened. prediction: None where it failed, and `failure` says why
    (fault, type, message, traceback). stored: the prediction that the task left; stored_failure: how it failed then.
    apart: how far numbers are apart that count as the same. notes: what is not as it was in the run.
    """

    task: str
    place: str
    verdict: Verdict
    input: str | None
    prediction: Any
    failure: dict[str, Any] | None
    stored: Stored | None
    stored_failure: dict[str, Any] | None
    apart: float
    seconds: dict[str, float]
    memory_bytes: int
    input_changed: bool
    notes: list[str]

    @property
    def good(self) -> bool:
        return self.verdict in GOOD

    def to_json(self) -> dict[str, Any]:
        stored = self.stored
        return {
            "task": self.task,
            "record": self.place,
            "verdict": self.verdict.value,
            "input": self.input,
            "prediction": self.prediction,
            "failure": self.failure,
            "stored_prediction": stored.prediction if stored is not None and stored.known else None,
            "stored_failure": self.stored_failure,
            "not_compared": stored.why if stored is not None and not stored.known else None,
            "apart": self.apart,
            **self.seconds,
            "memory_bytes": self.memory_bytes,
            "input_changed": self.input_changed,
            "notes": self.notes,
        }


def replay(asked: Asked, settings: Settings, tell: Callable[[str], None] = lambda _: None) -> Replayed:
    """Runs one record of a finished task again. tell: gets what takes its time, in words.

    Raises NotFound, InvalidValue and Conflict for what cannot be replayed, naming the argument.
    """
    task = _open(asked, settings)
    wanted = find_record(task, asked.record, asked.error)
    known = {name: value for name, value in asked.task.spec.env.items() if value} if asked.task is not None else {}
    used = find_model(task, model=asked.model, code=asked.code, given=asked.env, known=known)
    listed, changed = _input_now(task, wanted)
    notes = list(used.notes)
    if changed:
        notes = [f"{listed.name} was written again after the task read it: this is the record as it is now", *notes]
    with closing(ReplayChildren()) as children, closing(look_at(settings, used.model, used.code)) as environment:
        environment.install(children, lambda: False, tell)
        notes += _other_environment(task, environment)
        request = {
            "manifest": _manifest(task, used, children.root),
            "lease": _lease(listed),
            "row": (wanted.number or 1) - 1,
            "pdb": asked.debug,
        }
        answer = children.replay(request, debug=asked.debug, timeout_s=task.spec.record_timeout)
    return _judged(task, wanted, answer, asked.tolerance, changed, notes)


def _open(asked: Asked, settings: Settings) -> Task:
    place = parse_location(asked.folder, field="TASK", base=os.getcwd()).as_folder()  # noqa: PTH109 - a text is wanted
    buckets = settings.regions["local"].buckets if "local" in settings.regions else {}
    for region in settings.regions.values():
        if place.bucket in region.buckets:
            buckets = region.buckets
    objects = open_region(buckets, settings.data, local_paths=True, environment_buckets=True, retry_s=_RETRY_S)
    if asked.task is not None and not has_receipt(objects, place):
        return read_unfinished(objects, place, asked.task)
    return read_finished(objects, place)


def _input_now(task: Task, wanted: Wanted) -> tuple[InputObject, bool]:
    """The object as it is now, and whether that is another than the task read."""
    listed, place = wanted.listed, task.input.child(wanted.listed.name)
    now = task.objects.head(place)
    if now is None:
        raise NotFound(f"{place} is gone: the task read it, and it is not there now.", field="RECORD")
    found = InputObject(0, listed.name, now.size, now.etag, task.objects.grant_read(place, _GRANT_S))
    return found, (now.size, now.etag) != (listed.size, listed.etag)


def _other_environment(task: Task, environment: RunEnvironment) -> list[str]:
    """How what it runs in differs from what the task ran in, in words."""
    then, now = task.environment.get("python"), platform.python_version()
    if then is not None and then != now:
        return [f"the task ran on Python {then}, this is {now}"]
    if task.environment and task.environment.get("digest") != environment.digest:
        return ["the environment of requirements is not the one that the task ran in"]
    return []


def _manifest(task: Task, used: UsedModel, root: str) -> dict[str, Any]:
    spec, machine = task.spec, machine_resources()
    scratch = str(Path(root) / "replay" / "scratch")
    manifest = Manifest(
        version=CONTRACT_VERSION,
        task=task.id,
        run="replay",
        instance="replay",
        channel=Channel("fd"),
        model=str(used.model) if used.model else None,
        code=str(used.code) if used.code else None,
        command=spec.command.contract() if spec.command is not None else None,
        input=task.input_format,
        result=task.result_format,
        millicores=spec.resources.cpu or machine.millicores,
        memory_bytes=spec.resources.memory or machine.memory_bytes,
        scratch=scratch,
        pins=Pins(1, 1, spec.batch.threads),
        env={"TMPDIR": scratch, **used.env},
        function=spec.function,
    )
    plain: dict[str, Any] = _plain(manifest)
    return plain


def _lease(listed: InputObject) -> dict[str, Any]:
    """The whole object. Its part is never written."""
    return {
        "split": 0,
        "fence": 1,
        "objects": [_plain(listed)],
        "start": 0,
        "stop": -1,
        "cursor": {"object": 0, "offset": 0},
        "part": {"name": "", "put": {"kind": "path", "location": os.devnull}},
    }


def _plain(value: Any) -> Any:
    """Dataclasses of the contract as JSON values."""
    if hasattr(value, "__dataclass_fields__"):
        return {key: _plain(inner) for key, inner in vars(value).items()}
    return value


def _judged(
    task: Task, wanted: Wanted, answer: dict[str, Any], tolerance: float, changed: bool, notes: list[str]
) -> Replayed:
    state = answer["state"]
    if state == "past_end":
        noun = "rows" if task.input_format.type == "parquet" else "records"
        raise NotFound(
            f"{wanted.listed.name} has {answer['rows']:,} {noun}: there is no number {wanted.number:,}.",
            field="RECORD",
            remedy="They are counted from 1; lines of CSV that hold the names of columns do not count.",
        )
    if state == "blank":
        raise InvalidValue(f"{wanted.place} is a blank line, which is no record.", field="RECORD")
    failure = _failure_of(answer)
    prediction = answer.get("prediction")
    stored, far = None, 0.0
    if wanted.stored is None and state == "predicted":
        stored = find_stored(task, wanted, answer["skipped"], prediction)
        distance = apart(stored.prediction, prediction, tolerance) if stored.known else None
        far = distance or 0.0
        verdict = _compared(stored, distance)
    elif wanted.stored is None:
        verdict = Verdict.FAILS_NOW if task.finished else Verdict.FAILS
        stored = find_stored(task, wanted, answer.get("skipped", 0), None) if state == "failed" else None
    elif failure is None:
        verdict = Verdict.RECOVERED
    else:
        verdict = Verdict.FAILS_THE_SAME if same_failure(wanted.stored, failure) else Verdict.FAILS_OTHERWISE
    return Replayed(
        task=task.id,
        place=wanted.place,
        verdict=verdict,
        input=answer.get("input"),
        prediction=prediction,
        failure=failure,
        stored=stored,
        stored_failure=wanted.stored,
        apart=far,
        seconds={key: answer[key] for key in ("load_s", "predict_s") if key in answer},
        memory_bytes=answer["memory_bytes"],
        input_changed=changed,
        notes=notes,
    )


def _compared(stored: Stored, distance: float | None) -> Verdict:
    if not stored.known:
        return Verdict.NOT_COMPARED
    return Verdict.DIFFERS if distance is None else Verdict.SAME


def _failure_of(answer: dict[str, Any]) -> dict[str, Any] | None:
    """fault, type, message and traceback, whichever way it failed. Raises InvalidValue where no record is to blame."""
    if answer["state"] == "failed":
        failure = answer["failure"]
        return {key: failure[key] for key in ("fault", "type", "message", "traceback", "fingerprint")}
    if answer["state"] == "killed":
        message = answer["how"] if answer["predicting"] else f"{answer['how']} before the record was predicted"
        return {"fault": answer["fault"], "type": "WorkerDied", "message": message, "traceback": ""}
    if answer["state"] == "fault":
        fault = answer["fault"]
        kept = {"fault": fault["kind"], "type": "", "message": fault["message"], "traceback": fault["traceback"]}
        return {**kept, "fingerprint": None}
    return None


def check_debug(*, json: bool) -> None:
    """Raises InvalidValue where nobody could answer pdb."""
    if json or not sys.stdin.isatty() or not sys.stdout.isatty():
        raise InvalidValue(
            "needs a terminal, and no --json.", field="--pdb", remedy="Leave it out here; the traceback is printed."
        )
