"""Finding the record that fails. In the worker: a mini-batch that raises is bisected. Across workers: what a crash, a hang or
a memory kill leaves is a window of suspects, which the next worker takes in small steps until one record is left.

Used by the worker (`Isolator`, `Suspicion`) and the agent (`narrow`).
"""

from __future__ import annotations

import time
import traceback
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, TypeVar

from tidemill_runtime.batching import BatchSizer
from tidemill_runtime.board import Board, Window
from tidemill_runtime.codec.records import Records
from tidemill_runtime.models.returned import WrongLength, as_list
from tidemill_runtime.models.service import Model
from tidemill_runtime.models.shapes import RECORD, convert

HOPELESS_AFTER = 100
"""Records from a worker's beginning that all failed, before it stops bisecting: the model fails always."""

_TRACE_FRAMES = 20


class CannotConvert(Exception):
    """Records that cannot be in one batch of the shape that the model wants."""


class Failure(NamedTuple):
    """Why a record has no prediction; the fields of `contract.ErrorRecord` that say so."""

    fault: str
    type: str
    message: str
    traceback: str
    attempts: int


class Place(NamedTuple):
    """Where a worker is: the block [begin, end) of an object, of which `items` items are committed already.

    Windows and marks count items from there: whoever takes over the lease begins to read at just that place.
    """

    object: int
    begin: int
    end: int
    items: int

    def window(self, first: int, count: int, limit_s: float) -> Window:
        return Window(self.object, self.begin, self.end, first - self.items, count, limit_s)


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
        self._place = Place(0, 0, 0, 0)

    def run(self, records: Records, place: Place, first: int, stop: int) -> Outcome:
        """Predicts the items [first, stop)."""
        self._place = place
        if self._model.batched:
            outcome = self._batch(records, first, stop)
        else:
            outcome = self._one_by_one(records, first, stop)
        self._failed += len(outcome.failed)
        self._ok = self._ok or len(outcome.failed) < stop - first
        return outcome

    def _batch(self, records: Records, first: int, stop: int) -> Outcome:
        started = time.monotonic()
        try:
            predictions = self._call(records, first, stop, again=False)
        except (Exception, SystemExit) as error:
            failure = _failure(error, 1)
        else:
            self._sizer.took(stop - first, time.monotonic() - started)
            return Outcome(predictions, {})
        hopeless = self._hopeless()
        if hopeless:
            self._sizer.took(stop - first, time.monotonic() - started)
        predictions = [None] * (stop - first)
        if stop - first == 1 or (hopeless and not self._works(records, first)):
            return Outcome(predictions, dict.fromkeys(range(stop - first), failure))
        failed: Dict[int, Failure] = {}
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
                continue
            except (Exception, SystemExit) as error:
                if high - low == 1:
                    failed[low - base] = _failure(error, attempts + 1)
            if high - low > 1:  # outside of the handler, or each error would drag those before it along
                self._bisect(records, base, low, high, attempts + 1, predictions, failed)

    def _hopeless(self) -> bool:
        return not self._ok and self._failed >= HOPELESS_AFTER

    def _works(self, records: Records, first: int) -> bool:
        """Whether the first record alone gets a prediction: then the model is not hopeless after all."""
        try:
            self._call(records, first, first + 1)
        except (Exception, SystemExit):
            return False
        return True

    def _call(self, records: Records, first: int, stop: int, *, again: bool = True) -> List[Any]:
        self._board.predict(self._place.window(first, stop - first, self._limit_s(stop - first)))
        items = records.fresh(first, stop) if again else records.items(first, stop)
        try:
            batch = convert(items, self._model.shape)
        except (ValueError, TypeError) as error:
            raise CannotConvert(f"the records cannot be made a batch of {self._model.shape}: {error}") from error
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
        window = self._place.window
        call, tell = self._model.call, self._board.predict
        started = time.monotonic()
        for index, item in enumerate(convert(records.items(first, stop), RECORD), first):
            tell(window(index, 1, limit_s))
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
    elif isinstance(error, CannotConvert):
        fault = "decode_error"
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
    """A record that kills each worker; it is not predicted again. count is 1."""

    object: int
    begin: int
    end: int
    first: int
    count: int
    fault: str
    message: str
    attempts: int


Mark = TypeVar("Mark", Suspect, Condemned)

STEPS = 32
"""A window of suspects is taken in so many steps: a death tells which. Two levels find one record of a thousand, at a death each;
halving would take ten."""


class Suspicion:
    """What earlier workers died of in this lease; asked by the worker before each mini-batch."""

    def __init__(self, suspects: List[Suspect], condemned: List[Condemned]) -> None:
        self._suspects = suspects
        self._condemned = condemned

    def forced(self) -> Dict[int, Dict[int, int]]:
        """By object, the blocks that have to be cut as they were: begin → end."""
        blocks: Dict[int, Dict[int, int]] = {}
        for marks in (self._suspects, self._condemned):
            for mark in marks:
                blocks.setdefault(mark.object, {})[mark.begin] = mark.end
        return blocks

    def move(self, old: Place, new: Place) -> None:
        self._suspects = moved(self._suspects, old, new)
        self._condemned = moved(self._condemned, old, new)

    def verdict(self, place: Place, item: int) -> Optional[Failure]:
        """The failure of an item that is not to be predicted again."""
        for mark in _within(self._condemned, place):
            if mark.first == item - place.items:
                return Failure(mark.fault, "WorkerDied", mark.message, "", mark.attempts)
        return None

    def starts(self, place: Place, item: int) -> bool:
        """Whether a suspected window begins here: what was done before is to be committed first."""
        return any(mark.first == item - place.items for mark in _within(self._suspects, place))

    def stop(self, place: Place, first: int, stop: int) -> int:
        """How far a mini-batch from `first` may go."""
        first, stop = first - place.items, stop - place.items
        for suspect in _within(self._suspects, place):
            last = suspect.first + suspect.count
            if first < suspect.first < stop:
                stop = suspect.first
            elif suspect.first <= first < last:
                stop = min(stop, last, first + -(-suspect.count // STEPS))
        for condemned in _within(self._condemned, place):
            if first < condemned.first < stop:
                stop = condemned.first
        return stop + place.items


def narrow(suspects: List[Suspect], window: Window, fault: str) -> List[Suspect]:
    """The suspects after a worker died in `window`, which comes last and takes the place of those that it lies in."""
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


def moved(marks: List[Mark], old: Place, new: Place) -> List[Mark]:
    """Marks after a commit in the middle of their block: they count from the new place; those before it are done with."""
    found = []
    passed = new.items - old.items
    for mark in marks:
        if (mark.object, mark.begin) != (old.object, old.begin):
            found.append(mark)
            continue
        first, last = max(mark.first, passed), mark.first + mark.count
        if first < last:
            found.append(mark._replace(object=new.object, begin=new.begin, first=first - passed, count=last - first))
    return found


def _within(marks: List[Mark], place: Place) -> Iterator[Mark]:
    return (mark for mark in marks if (mark.object, mark.begin) == (place.object, place.begin))
