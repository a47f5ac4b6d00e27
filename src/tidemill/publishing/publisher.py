"""Turns committed parts into results, and a finished plan into errors.jsonl, receipt and marker.

The server's publish loop and `tidemill run` call it with their journals. Nothing is kept between calls but what the
storage and the journal hold, so every call may be repeated, by another process, after a kill at any point: what is
there already and is the same counts as made.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

from tidemill.crashpoints import reach
from tidemill.domain import layout
from tidemill.domain.errors import Conflict, InvalidValue, OutputTaken, PartDamaged
from tidemill.domain.ids import TaskId
from tidemill.domain.location import Location
from tidemill.domain.plan import Plan, Since
from tidemill.domain.receipt import Receipt, ResultsAccount, canonical, check_counts
from tidemill.ports.journal import Journal, PublishedUnit
from tidemill.ports.objects import Composed, Objects, Piece
from tidemill.publishing.merging import Merging
from tidemill.publishing.units import Setting, Unit, composed, staging_for
from tidemill_runtime.contract import Counts, ResultFormat

WORKERS = 8
"""Results that are made at a time: S3 answers a small put in milliseconds, and in parallel."""
_HEADER_BYTES_MAX = 64 * 1024


@dataclass(frozen=True)
class Finished:
    """What is in the output folder. results: objects; size: bytes of them. receipt_sha256: of receipt.json."""

    results: int
    size: int
    counts: Counts
    receipt_sha256: str
    manifest_sha256: str


class Publisher:
    """sign: puts the signature on a receipt (`signing.Signer.sign`). replace: whether objects of others in the output
    folder may be replaced (`output.if_exists`).

    Raises InvalidValue for a result format that cannot be put together from parts.
    """

    def __init__(
        self,
        journal: Journal,
        objects: Objects,
        plan: Plan,
        output: Location,
        task: TaskId,
        result: ResultFormat,
        *,
        sign: Callable[[Receipt], Receipt],
        replace: bool = False,
    ) -> None:
        check_result_format(result)
        self._journal = journal
        self._objects = objects
        self._plan = plan
        self._output = output.as_folder()
        self._task = task
        self._sign = sign
        self._replace = replace
        self._setting = Setting(objects, plan, self._output, task, result, replace)

    def publish_ready(self, limit: int) -> int:
        """Publishes up to `limit` units whose splits are all committed; how many it were.

        Raises PartDamaged naming a part that is not what was committed; OutputTaken if another's object is in the way.
        """
        ready = self._journal.units_ready(limit)
        if not ready:
            return 0
        if self._replace:
            self._drop_old_marker()
        with ThreadPoolExecutor(WORKERS, thread_name_prefix="tidemill-publish") as executor:
            made = [self._unit(number).publish(executor) for number in ready]
        self._objects.sync(self._output)  # the journal must not know more than the disk
        for unit in made:
            self._journal.published(unit)
            reach("publish.unit")
        return len(made)

    def errors(self) -> Iterator[bytes]:
        """Lines of errors.jsonl for all that is committed so far, in order of the input, published or not.

        For a look at a run that is not finished: see `Unit.errors_so_far`.
        """
        for number in range(self._plan.units):
            yield from self._unit(number).errors_so_far()

    def finish(self, receipt: Receipt) -> Finished:
        """errors.jsonl, the listing of the inputs, receipt.json, and last `_SUCCESS` with the manifest of all results.

        The receipt's counts and results are filled in here. A plan that is finished already is left as it is. Raises
        Conflict while a unit is not published, and PartDamaged where the accounts do not add up.
        """
        done = self._finished()
        if done is not None:
            return done
        totals, with_errors = self._totals()
        error_lists = [layout.unit_errors(self._task, unit) for unit in with_errors]
        manifest_name = f"{layout.task_folder(self._task)}manifest.jsonl"
        lists = [layout.unit_manifest(self._task, unit) for unit in range(self._plan.units)]
        if self._plan.since is not None and self._plan.since.earlier.merged:
            totals = self._merge(self._plan.since, totals, lists, error_lists)
            lists, error_lists = [self._merged("results")], [self._merged("errors")]
        errors = self._assemble(layout.ERRORS, error_lists)
        reach("finish.errors")
        manifest = self._assemble(manifest_name, lists)
        account = ResultsAccount(str(self._output), totals.results, totals.size, manifest.sha256, errors.sha256)
        whole, since = self._plan.input, self._plan.since
        self._compose(layout.INPUTS, [Piece(whole.listing, sha256=whole.listing_sha256)])
        if since is not None:
            self._compose(layout.DELETED, [Piece(since.gone, sha256=since.gone_sha256)])
        elif self._replace:
            self._objects.delete([self._output.child(layout.DELETED)])  # of results that were replaced
        receipt = self._sign(replace(receipt, counts=totals.counts, results=account))
        self._objects.put(self._output.child(layout.RECEIPT), receipt.to_json())
        reach("finish.receipt")
        finished = Finished(totals.results, totals.size, totals.counts, receipt.sha256, manifest.sha256)
        self._objects.sync(self._output)
        header = marker_header(self._task, receipt.run, finished)
        pieces: list[bytes | Piece] = [
            header,
            Piece(self._output.child(manifest_name), 0, manifest.size, sha256=manifest.sha256),
        ]
        self._compose(layout.MARKER, pieces)
        self._objects.sync(self._output)
        reach("finish.marked")
        return finished

    def clean(self) -> None:
        """Removes the task's staging, listing included, and nothing else. Not before every instance has ended."""
        self._objects.delete_below(self._output.child(layout.task_folder(self._task)))

    def _unit(self, number: int) -> Unit:
        return Unit(self._setting, number, self._journal.splits(number), self._journal.parts(number))

    def _totals(self) -> tuple[PublishedUnit, list[int]]:
        """The sum of all units (its number means nothing), and which of them have errors."""
        counts, results, size, seen = Counts(), 0, 0, 0
        with_errors: list[int] = []
        for unit in self._journal.units_published():
            counts, results, size, seen = counts + unit.counts, results + unit.results, size + unit.size, seen + 1
            if unit.counts.failed:
                with_errors.append(unit.unit)
        if seen != self._plan.units:
            raise Conflict(f"{self._plan.units - seen} of {self._plan.units} units are not published yet.")
        check_counts(counts)
        committed = self._journal.totals().counts
        if committed != counts:
            raise PartDamaged(f"{committed} was committed, but {counts} is published.")
        return PublishedUnit(-1, results, size, counts), with_errors

    def _merge(self, since: Since, totals: PublishedUnit, lists: list[str], error_lists: list[str]) -> PublishedUnit:
        """Takes over the results of what has not changed, and writes the lists of all; the totals of all."""
        merging = Merging(self._setting, since)
        places = ([self._output.child(name) for name in names] for names in (lists, error_lists))
        results, errors = places
        self._objects.put(self._output.child(self._merged("results")), merging.manifest(results))
        self._objects.put(self._output.child(self._merged("errors")), merging.errors(errors))
        return PublishedUnit(
            -1, totals.results + merging.results, totals.size + merging.size, totals.counts + merging.counts
        )

    def _merged(self, what: str) -> str:
        return f"{layout.task_folder(self._task)}merged-{what}.jsonl"

    def _assemble(self, name: str, sources: list[str]) -> Composed:
        return self._compose(name, [Piece(self._output.child(source)) for source in sources])

    def _compose(self, name: str, pieces: list[bytes | Piece]) -> Composed:
        # What is not a result may always be replaced: the folder is ours, and a run before may have got this far.
        staging = staging_for(self._output, self._task)
        return composed(self._objects, self._output.child(name), pieces, staging=staging, replace=True)

    def _finished(self) -> Finished | None:
        """What our marker says, if it is there."""
        header = read_marker(self._objects, self._output)
        if header is None:
            return None
        if header["task"] != self._task:
            if self._replace:
                return None
            raise OutputTaken(f"{self._output} holds the results of {header['task']}.", field="output")
        return Finished(
            header["results"],
            header["size"],
            Counts(**header["counts"]),
            header["receipt_sha256"],
            header["manifest_sha256"],
        )

    def _drop_old_marker(self) -> None:
        """Another task's `_SUCCESS` must not vouch for what is being replaced."""
        header = read_marker(self._objects, self._output)
        if header is not None and header["task"] != self._task:
            self._objects.delete([self._output.child(layout.MARKER)])


def check_result_format(result: ResultFormat) -> None:
    """Raises InvalidValue for a format that cannot be written here. Asked when a task is made, too."""
    if result.type == "parquet" and find_spec("pyarrow") is None:
        raise InvalidValue(
            "results in Parquet need pyarrow, which is not installed.",
            field="format.result.type",
            remedy="Install it (pip install 'tidemill[parquet]'), or use csv or jsonl.",
        )


def marker_header(task: str, run: str, finished: Finished) -> bytes:
    """The first line of `_SUCCESS`."""
    return canonical({"task": task, "run": run, **vars(finished), "counts": vars(finished.counts)})


def read_marker(objects: Objects, output: Location) -> dict[str, Any] | None:
    """The first line of the folder's `_SUCCESS`: task, run, results, size, counts, digests. None if there is none.

    Another tool's marker, which is no JSON, has the task None.
    """
    marker = output.child(layout.MARKER)
    if objects.head(marker) is None:
        return None
    text = objects.read(marker, 0, _HEADER_BYTES_MAX)
    try:
        header = json.loads(text.partition(b"\n")[0])
    except ValueError:
        return {"task": None}
    return header if isinstance(header, dict) and "task" in header else {"task": None}
