"""Finding the record that fails. In the worker: a mini-batch that raises is bisected. Across workers: what a crash, a hang or
a memory kill leaves is a window of suspects, which the next worker takes in small steps until one record is left.

Used by the worker (`Isolator`, `Suspicion`) and the agent (`narrow`).
"""

from __future__ import annotations

import time
import traceback
from typing import Any, Dict, List, NamedTuple, Optional

from tidemill_runtime.batching import BatchSizer
from tidemill_runtime.board import Board, Window
from tidemill_runtime.codec.records import Records
from tidemill_runtime.models.returned import WrongLength, as_list
from tidemill_runtime.models.service import Model
from tidemill_runtime.models.shapes import convert

HOPELESS_AFTER = 100
"""Records from a worker's beginning that all failed, before it stops bisecting: the model fails always."""

_TRACE_FRAMES = 20


class Failure(NamedTuple):
    """Why a record has no prediction; the fields of `contract.ErrorRecord` that say so."""

    fault: str
    type: str
    message: str
    traceback: str
    attempts: int


class Outcome(NamedTuple):
    """predictions: one for each item, None where `failed` has its index (counted from the first of the call)."""

    predictions: List[Any]
    failed: Dict[int, Failure]


class Isolator:
    """Calls the model and says which records failed. timeout_s: record_timeout_s, None for no limit."""

    def __init__(self, model: Model, board: Board, sizer: BatchSizer, timeout_s: Optional[float]) -> None:
        self._model = model
        self._board = board
        self._sizer = sizer
        self._timeout_s = timeout_s
        self._ok = False
        self._failed = 0
        self.predict_s = 0.0

    def run(self, records: Records, first: int, stop: int) -> Outcome:
        """Predicts the items [first, stop)."""
        started = time.monotonic()
        if self._model.batched:
            outcome = self._batch(records, first, stop)
        else:
            outcome = self._one_by_one(records, first, stop)
        self._failed += len(outcome.failed)
        self._ok = self._ok or len(outcome.failed) < stop - first
        self.predict_s += time.monotonic() - started
        return outcome

    def _batch(self, records: Records, first: int, stop: int) -> Outcome:
        started = time.monotonic()
        try:
            predictions = self._call(records, first, stop)
        except Exception as error:
            failure = _failure(error, 1)
        except SystemExit as error:
            failure = _failure(error, 1)
        else:
            self._sizer.took(stop - first, time.monotonic() - started)
            return Outcome(predictions, {})
        if stop - first == 1:
            return Outcome([None], {0: failure})
        predictions = [None] * (stop - first)
        failed: Dict[int, Failure] = {}
        if self._hopeless() and not self._works(records, first, failed, predictions):
            return Outcome(predictions, {item: failure for item in range(stop - first)})
        self._bisect(records, first, first, stop, 1, predictions, failed)
        return Outcome(predictions, failed)

    def _bisect(
        self,
        records: Records,
        base: int,
        first: int,
        stop: int,
        attempts: int,
        predictions: List[Any],
        failed: Dict[int, Failure],
    ) -> None:
        """Both halves of [first, stop), which failed as a whole."""
        middle = (first + stop) // 2
        for low, high in ((first, middle), (middle, stop)):
            try:
                predictions[low - base : high - base] = self._call(records, low, high)
                self._ok = True
            except (Exception, SystemExit) as error:
                if high - low == 1:
                    failed[low - base] = _failure(error, attempts + 1)
                else:
                    self._bisect(records, base, low, high, attempts + 1, predictions, failed)

    def _hopeless(self) -> bool:
        return not self._ok and self._failed >= HOPELESS_AFTER

    def _works(self, records: Records, first: int, failed: Dict[int, Failure], predictions: List[Any]) -> bool:
        """Whether the first record alone gets a prediction: then the model is not hopeless after all."""
        try:
            self._call(records, first, first + 1)
        except (Exception, SystemExit):
            return False
        return True

    def _call(self, records: Records, first: int, stop: int) -> List[Any]:
        self._board.predict(Window(records.object, records.begin, records.end, first, stop - first, self._limit_s(stop - first)))
        batch = convert(records.items(first, stop), self._model.shape)
        return as_list(self._model.call(batch), stop - first)

    def _limit_s(self, count: int) -> float:
        """A call may take the limit of a record, and for more of them what they have been seen to take, four times over."""
        if not self._timeout_s:
            return 0.0
        return self._timeout_s + (4 * count * self._sizer.record_s if count > 1 else 0.0)

    def _one_by_one(self, records: Records, first: int, stop: int) -> Outcome:
        predictions: List[Any] = []
        failed: Dict[int, Failure] = {}
        limit_s = self._timeout_s or 0.0
        place = (records.object, records.begin, records.end)
        call, tell = self._model.call, self._board.predict
        started = time.monotonic()
        for index, item in enumerate(records.items(first, stop), first):
            tell(Window(*place, index, 1, limit_s))
            try:
                predictions.append(call(item))
            except (Exception, SystemExit) as error:
                predictions.append(None)
                failed[index - first] = _failure(error, 1)
        self._sizer.took(stop - first, time.monotonic() - started)
        return Outcome(predictions, failed)


def _failure(error: BaseException, attempts: int) -> Failure:
    fault = "model_error"
    if isinstance(error, WrongLength):
        fault = "wrong_length"
    elif isinstance(error, MemoryError):
        fault = "out_of_memory"
    trace = traceback.format_exception(type(error), error, _users_own(error.__traceback__), limit=-_TRACE_FRAMES)
    return Failure(fault, type(error).__name__, str(error), "".join(trace), attempts)


def _users_own(trace: Any) -> Any:
    """The traceback from the first frame on that is not this package's."""
    here = trace
    while here is not None and here.tb_frame.f_globals.get("__name__", "").startswith("tidemill_runtime"):
        here = here.tb_next
    return here or trace


class Suspect(NamedTuple):
    """Records of which one killed a worker. deaths: of workers, in exactly these. fault: how the last one died."""

    object: int
    begin: int
    end: int
    first: int
    count: int
    deaths: int
    fault: str


class Condemned(NamedTuple):
    """A record that kills a worker each time; it is not predicted again."""

    object: int
    begin: int
    end: int
    item: int
    fault: str
    message: str
    attempts: int


STEPS = 32
"""A window of suspects is taken in so many steps: a death tells which. Two levels find one record of a thousand, at a death each;
halving would take ten."""


class Suspicion:
    """What earlier workers died of in this lease; asked by the worker before each mini-batch."""

    def __init__(self, suspects: List[Suspect], condemned: List[Condemned]) -> None:
        self._suspects = suspects
        self._condemned = {(each.object, each.begin, each.item): each for each in condemned}

    def forced(self) -> Dict[int, Dict[int, int]]:
        """By object, the blocks that have to be cut as they were: begin → end."""
        blocks: Dict[int, Dict[int, int]] = {}
        for suspect in self._suspects:
            blocks.setdefault(suspect.object, {})[suspect.begin] = suspect.end
        for condemned in self._condemned.values():
            blocks.setdefault(condemned.object, {})[condemned.begin] = condemned.end
        return blocks

    def verdict(self, records: Records, item: int) -> Optional[Failure]:
        """The failure of an item that is not to be predicted again."""
        found = self._condemned.get((records.object, records.begin, item)) if self._condemned else None
        if found is None:
            return None
        return Failure(found.fault, "WorkerDied", found.message, "", found.attempts)

    def starts(self, records: Records, item: int) -> bool:
        """Whether a suspected window begins here: what was done before is to be committed first."""
        return any(
            (each.object, each.begin, each.first) == (records.object, records.begin, item) for each in self._suspects
        )

    def stop(self, records: Records, first: int, stop: int) -> int:
        """How far a mini-batch from `first` may go."""
        for each in self._suspects:
            if (each.object, each.begin) != (records.object, records.begin):
                continue
            last = each.first + each.count
            if first < each.first < stop:
                stop = each.first
            elif each.first <= first < last:
                stop = min(stop, last, first + -(-each.count // STEPS))
        for _, begin, item in self._condemned:
            if begin == records.begin and first < item < stop:
                stop = item
        return stop


def narrow(suspects: List[Suspect], window: Window, fault: str) -> List[Suspect]:
    """The suspects after a worker died in `window`: it takes the place of those that it lies in."""
    kept = []
    deaths = 1
    for each in suspects:
        if (each.object, each.begin) == (window.object, window.begin):
            if (each.first, each.count) == (window.first, window.count):
                deaths += each.deaths
                continue
            if each.first <= window.first and window.first + window.count <= each.first + each.count:
                continue
        kept.append(each)
    kept.append(Suspect(window.object, window.begin, window.end, window.first, window.count, deaths, fault))
    return kept
