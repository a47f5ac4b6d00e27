"""Calling the model, and finding the record that fails: a mini-batch that raises is bisected. Used by the worker.

Records that kill the worker instead are found across workers: see `suspicion`.
"""

from __future__ import annotations

import time
import traceback
from typing import Any, NamedTuple, Optional, Union

from tidemill_runtime import windows
from tidemill_runtime.batching import BatchSizer
from tidemill_runtime.board import ISOLATING, Board
from tidemill_runtime.codec.records import Records
from tidemill_runtime.exhausted import free_memory, ran_out_of_memory
from tidemill_runtime.faults import FatalError
from tidemill_runtime.models.outside import RecordFault
from tidemill_runtime.models.port import Model
from tidemill_runtime.models.returned import WrongLength, checked, kept
from tidemill_runtime.models.shapes import RECORD, convert
from tidemill_runtime.suspicion import Failure, Place

HOPELESS_AFTER = 100
"""Records from a worker's beginning that all failed, before it stops bisecting: the model fails always."""

_TRACE_FRAMES = 20


class CannotConvert(Exception):
    """Records that cannot be in one batch of the shape that the model wants."""


class Piece(NamedTuple):
    """The items [first, stop) of a block, and what the model returned for them, in its own form.

    returned: a list, an array, a frame, a table or a dict of columns with stop - first predictions.
    """

    first: int
    stop: int
    returned: Any


class Outcome(NamedTuple):
    """What became of some items of a block: each is in one piece (they are in order) or in `failed`, by its number."""

    pieces: list[Piece]
    failed: dict[int, Failure]


Items = Union[Records, windows.Sorted]


class Isolator:
    """Calls the model and says which records failed. timeout_s: record_timeout_s, None for no limit."""

    def __init__(self, model: Model, board: Board, sizer: BatchSizer, timeout_s: Optional[float]) -> None:
        self._model = model
        self._board = board
        self._sizer = sizer
        self._timeout_s = timeout_s
        if model.clock is not None:
            model.clock.attach(lambda: board.enter(ISOLATING), lambda: board.predict(self._called))
        self._sorts = model.batched and model.shape in windows.SHAPES
        self._ok = False
        self._failed = 0
        self._told = False
        self._place = Place(0, 0, 0, 0)
        self._called = self._place.window(0, 0, 0.0)
        self._window: Optional[tuple[int, int]] = None
        self._mean_s = self._slowest_s = 0.0  # of a record of the window before, where its texts are of all lengths
        self.sorted = False
        self.shape, self.record = model.shape, model.record

    def reach(self, longest_s: float) -> int:
        """How many items `run` is to be given at once, which takes no longer than `longest_s` or one call."""
        size = self._sizer.size
        return windows.reach(size, self._mean_s or self._sizer.record_s, longest_s) if self._sorts else size

    def run(self, records: Records, place: Place, first: int, stop: int) -> Outcome:
        """Predicts the items [first, stop): in one call, or in several if they are more than a call has."""
        self._place = place
        if stop - first > self._sizer.size and self._sorts:
            return self._run_window(records, first, stop)
        self._mean_s = self._slowest_s = 0.0
        return self._run(records, first, stop)

    def _run(self, records: Items, first: int, stop: int) -> Outcome:
        outcome = self._batch(records, first, stop) if self._model.batched else self._one_by_one(records, first, stop)
        self._failed += len(outcome.failed)
        self._ok = self._ok or len(outcome.failed) < stop - first
        return outcome

    def _run_window(self, records: Records, first: int, stop: int) -> Outcome:
        """Calls over records of much the same length; what comes out is in order again.

        Whoever dies in one of them leaves the whole window under suspicion: its records are neighbours in no order.
        """
        started = time.monotonic()
        items = records.items(first, stop)
        lengths = windows.lengths_of(items)
        order = windows.by_length(lengths)
        self.sorted = order is not None
        if order is None:
            return self._run_in_order(records, first, stop)
        self._window = (first, stop - first)
        view = windows.Sorted(records, first, items, lengths, order)
        slowest_s = 0.0
        parts: list[tuple[list[int], Any]] = []
        failed: dict[int, Failure] = {}
        low = 0
        try:
            while low < len(order):
                high = min(len(order), low + self._sizer.size)
                outcome = self._run(view, low, high)
                slowest_s = max(slowest_s, self._sizer.last_s)
                parts += [(order[piece.first : piece.stop], kept(piece.returned)) for piece in outcome.pieces]
                failed.update((first + order[number], failure) for number, failure in outcome.failed.items())
                low = high
        finally:
            self._window = None
        self._mean_s, self._slowest_s = (time.monotonic() - started) / len(order), slowest_s
        pieces = [Piece(first + begin, first + end, returned) for begin, end, returned in windows.restored(parts)]
        return Outcome(pieces, failed)

    def _run_in_order(self, records: Records, first: int, stop: int) -> Outcome:
        outcome = Outcome([], {})
        while first < stop:
            high = min(stop, first + self._sizer.size)
            _extend(outcome, self._run(records, first, high))
            first = high
        return outcome

    def _batch(self, records: Items, first: int, stop: int, *, again: bool = False) -> Outcome:
        started = time.monotonic()
        failure: Optional[Failure] = None
        try:
            piece = self._call(records, first, stop, again=again)
        except (Exception, SystemExit) as error:
            if stop - first == 1 or not ran_out_of_memory(error):
                failure = _failure(error, 1, self._model.folders)
        else:
            weight = records.weight(first, stop) if isinstance(records, windows.Sorted) else None
            self._sizer.took(stop - first, time.monotonic() - started, weight)
            return Outcome([piece], {})
        if failure is None:
            return self._with_less(records, first, stop)
        hopeless = self._hopeless()
        if hopeless:
            self._sizer.took(stop - first, time.monotonic() - started)
        if stop - first == 1 or (hopeless and not self._works(records, first)):
            return Outcome([], dict.fromkeys(range(first, stop), failure))
        outcome = Outcome([], {})
        self._bisect(records, first, stop, 1, outcome)
        return outcome

    def _with_less(self, records: Items, first: int, stop: int) -> Outcome:
        """What ran out of memory again, in calls of half the size, and so on; a single record that still does has
        failed.
        """
        before = self._sizer.mark()
        self._sizer.ran_out(stop - first)
        free_memory()
        middle = (first + stop) // 2
        outcome = Outcome([], {})
        _extend(outcome, self._batch(records, first, middle, again=True))
        _extend(outcome, self._batch(records, middle, stop, again=True))
        if any(failure.fault == "out_of_memory" for failure in outcome.failed.values()):
            self._sizer.forgive(before)
        return outcome

    def _bisect(self, records: Items, first: int, stop: int, attempts: int, outcome: Outcome) -> None:
        """Both halves of [first, stop), which failed as a whole."""
        middle = (first + stop) // 2
        for low, high in ((first, middle), (middle, stop)):
            try:
                _extend(outcome, Outcome([self._call(records, low, high)], {}))
                self._ok = True
                continue
            except (Exception, SystemExit) as error:
                if high - low == 1:
                    outcome.failed[low] = _failure(error, attempts + 1, self._model.folders)
            if high - low > 1:  # outside of the handler, or each error would drag those before it along
                self._bisect(records, low, high, attempts + 1, outcome)

    def lost_hope(self) -> bool:
        """Whether all of HOPELESS_AFTER records have failed by now; said once."""
        lost = self._hopeless() and not self._told
        self._told = self._told or lost
        return lost

    def _hopeless(self) -> bool:
        return not self._ok and self._failed >= HOPELESS_AFTER

    def _works(self, records: Items, first: int) -> bool:
        """Whether the first record alone gets a prediction: then the model is not hopeless after all."""
        try:
            self._call(records, first, first + 1)
        except (Exception, SystemExit):
            return False
        return True

    def _call(self, records: Items, first: int, stop: int, *, again: bool = True) -> Piece:
        begin, size = self._window or (first, stop - first)
        self._called = self._place.window(begin, size, self._limit_s(stop - first))
        self._board.predict(self._called)
        items = records.fresh(first, stop) if again else records.items(first, stop)
        try:
            batch = convert(items, self._model.shape, self._model.record)
        except (ValueError, TypeError) as error:
            raise CannotConvert(f"the records cannot be made a batch of {self._model.shape}: {error}") from error
        return Piece(first, stop, checked(self._model.call(batch), stop - first))

    def _limit_s(self, count: int) -> float:
        """A call may take the limit of a record, and for more of them what they have been seen to take, four times
        over.
        """
        if not self._timeout_s:
            return 0.0
        return self._timeout_s + (4 * count * max(self._sizer.record_s, self._slowest_s) if count > 1 else 0.0)

    def _one_by_one(self, records: Items, first: int, stop: int) -> Outcome:
        predictions: list[Any] = []
        outcome = Outcome([], {})
        begin = first
        limit_s = self._timeout_s or 0.0
        window = self._place.window
        call, tell = self._model.call, self._board.predict
        started = time.monotonic()
        for index, item in enumerate(convert(records.items(first, stop), RECORD), first):
            tell(window(index, 1, limit_s))
            try:
                predictions.append(call(item))
            except (Exception, SystemExit) as error:
                outcome.failed[index] = _failure(error, 1, self._model.folders)
                if predictions:
                    outcome.pieces.append(Piece(begin, index, predictions))
                predictions, begin = [], index + 1
        if predictions:
            outcome.pieces.append(Piece(begin, stop, predictions))
        self._sizer.took(stop - first, time.monotonic() - started)
        return outcome


def _extend(outcome: Outcome, more: Outcome) -> None:
    """Adds what another call gave; the model may use its arrays again for the next."""
    outcome.pieces.extend(piece._replace(returned=kept(piece.returned)) for piece in more.pieces)
    outcome.failed.update(more.failed)


def _failure(error: BaseException, attempts: int, folders: tuple[str, ...]) -> Failure:
    if isinstance(error, FatalError):
        raise error
    if isinstance(error, RecordFault):
        return Failure(error.fault, error.type, str(error), error.trace, attempts)
    fault = "model_error"
    if isinstance(error, WrongLength):
        fault = "wrong_length"
    elif isinstance(error, CannotConvert):
        fault = "decode_error"
    elif ran_out_of_memory(error):
        fault = "out_of_memory"
    return Failure(fault, type(error).__name__, str(error), _users_trace(error, folders), attempts)


def _users_trace(error: BaseException, folders: tuple[str, ...]) -> str:
    """The traceback from the first frame on that is not this package's; "" where it says nothing about the model."""
    here = error.__traceback__
    while here is not None and here.tb_frame.f_globals.get("__name__", "").startswith("tidemill_runtime"):
        here = here.tb_next
    if here is None or isinstance(error, CannotConvert):
        return ""
    text = "".join(traceback.format_exception(type(error), error, here, limit=-_TRACE_FRAMES))
    for folder in folders:
        text = text.replace(f'File "{folder}/', 'File "')
    return text
