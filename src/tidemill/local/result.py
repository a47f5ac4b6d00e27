"""What became of a run without a server. `tidemill.run` returns it; `tidemill run --json` prints `to_json`."""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tidemill.domain import layout
from tidemill.domain.life import Reason, TaskStatus
from tidemill.domain.location import Location
from tidemill.ports.objects import Objects
from tidemill.publishing.rows import predictions
from tidemill_runtime.contract import Counts

PHASES = ("queue", "environment", "start", "load", "predict", "publish")
_SHOWN = 5


@dataclass(frozen=True)
class Result:
    """status: SUCCEED, FAILED or STOPPED. explanation: the reason in words, with what to do.

    output: the results' folder. seconds: wall time by phase (queue, environment, start, load, predict, publish), and
    "total".
    resumable: whether running the same task with `resume=True` goes on where this one ended.
    tuning: mini-batch size, processes and threads, each with its reason ("processes_why").
    log: of a run that did not succeed, what its instances printed: a file, or a folder of several.
    """

    id: str
    status: TaskStatus
    reason: Reason
    explanation: str
    counts: Counts
    output: str
    seconds: dict[str, float]
    resumable: bool = False
    tuning: dict[str, Any] = field(default_factory=dict)
    log: str | None = None
    _objects: Objects | None = field(default=None, repr=False, compare=False)
    _folder: Location | None = field(default=None, repr=False, compare=False)
    _result_type: str = field(default="jsonl", repr=False, compare=False)
    _errors: Callable[[], Iterator[bytes]] | None = field(default=None, repr=False, compare=False)

    @property
    def succeeded(self) -> bool:
        return self.status is TaskStatus.SUCCEED

    @property
    def inputs(self) -> int:
        return self.counts.inputs

    @property
    def ok(self) -> int:
        return self.counts.ok

    @property
    def failed(self) -> int:
        return self.counts.failed

    @property
    def skipped(self) -> int:
        return self.counts.skipped

    def results(self) -> Iterator[str]:
        """Names of the result objects in the output folder, in order of the input; none unless the run succeeded."""
        for line in self._marker_lines():
            yield json.loads(line)["name"]

    def predictions(self) -> Iterator[Any]:
        """Every prediction in order of the input; None for a failed record.

        jsonl: JSON's values. text: strings. csv, parquet: the prediction where that is the only column, else a dict of
        all columns (of csv: of strings). file: the bytes of each file; a failed record has none.
        """
        for name in self.results():
            assert self._objects is not None
            assert self._folder is not None
            yield from predictions(self._objects, self._folder.child(name), self._result_type)

    def errors(self) -> Iterator[dict[str, Any]]:
        """Failed records in order of the input: object, line or row, fault, type, message, traceback and more."""
        for line in self._errors() if self._errors else ():
            yield json.loads(line)

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.id,
            "status": str(self.status),
            "reason": str(self.reason),
            "explanation": self.explanation,
            "inputs": self.inputs,
            "ok": self.ok,
            "failed": self.failed,
            "skipped": self.skipped,
            "output": self.output,
            "seconds": {phase: round(seconds, 6) for phase, seconds in self.seconds.items()},
            "tuning": self.tuning,
            **({} if self.succeeded else {"log": self.log}),
        }

    def _repr_html_(self) -> str:
        """How a notebook shows it: the account, and the first failed records."""
        told = "" if self.succeeded and not self.failed else f"<p>{html.escape(self.explanation)}</p>"
        rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in self._facts())
        failed = "".join(
            f"<tr><td>{html.escape(_place(error))}</td><td>{html.escape(str(error['type']))}</td>"
            f"<td>{html.escape(str(error['message'])[:200])}</td></tr>"
            for _, error in zip(range(_SHOWN), self.errors() if self.failed else (), strict=False)
        )
        table = f"<table><tr><th>failed</th><th>type</th><th>message</th></tr>{failed}</table>" if failed else ""
        return f"<div><b>{html.escape(self.headline)}</b>{told}<table>{rows}</table>{table}</div>"

    @property
    def headline(self) -> str:
        """The status, and loudly that records failed."""
        records = f"{self.failed:,} FAILED RECORD{'' if self.failed == 1 else 'S'}"
        return f"{self.status} WITH {records}" if self.succeeded and self.failed else str(self.status)

    def _facts(self) -> list[tuple[str, str]]:
        account = f"{self.inputs:,} = {self.ok:,} ok + {self.failed:,} failed + {self.skipped:,} skipped"
        spent = ", ".join(f"{phase} {self.seconds[phase]:.2f} s" for phase in PHASES if self.seconds.get(phase))
        return [("task", self.id), ("records", account), ("time", spent), ("output", html.escape(self.output))]

    def _marker_lines(self) -> Iterator[bytes]:
        if not self.succeeded or self._objects is None or self._folder is None:
            return
        lines = _lines(self._objects.stream(self._folder.child(layout.MARKER)))
        next(lines, None)  # the first is about all of them
        yield from lines


def finished_errors(objects: Objects, folder: Location) -> Iterator[bytes]:
    """Lines of a finished folder's errors.jsonl."""
    return _lines(objects.stream(folder.child(layout.ERRORS)))


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _place(error: dict[str, Any]) -> str:
    at = next((f" {key} {error[key]}" for key in ("line", "row") if key in error), "")
    return f"{error['object']}{at}"
