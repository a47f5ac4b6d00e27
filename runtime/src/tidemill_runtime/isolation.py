"""Calling the model, and finding the record that fails: a mini-batch that raises is bisected. Used by the worker.

Records that kill the worker instead are found across workers: see `suspicion`.
"""

from __future__ import annotations

import time
import traceback
from typing import Any, NamedTuple, Optional

from tidemill_runtime.batching import BatchSizer
from tidemill_runtime.board import Board
from tidemill_runtime.codec.records import Records
from tidemill_runtime.models.port import Model
from tidemill_runtime.models.returned import WrongLength, checked
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
        call = self._batch if self._model.batched else self._one_by_one
        outcome = call(records, first, stop)
        self._failed += len(outcome.failed)
        self._ok = self._ok or len(outcome.failed) < stop - first
        return outcome

    def _batch(self, records: Records, first: int, stop: int) -> Outcome:
        started = time.monotonic()
        try:
            piece = self._call(records, first, stop, again=False)
        except (Exception, SystemExit) as error:
            failure = _failure(error, 1, self._model.folders)
        else:
            self._sizer.took(stop - first, time.monotonic() - started)
            return Outcome([piece], {})
        hopeless = self._hopeless()
        if hopeless:
            self._sizer.took(stop - first, time.monotonic() - started)
        if stop - first == 1 or (hopeless and not self._works(records, first)):
            return Outcome([], dict.fromkeys(range(first, stop), failure))
        outcome = Outcome([], {})
        self._bisect(records, first, stop, 1, outcome)
        return outcome

    def _bisect(self, records: Records, first: int, stop: int, attempts: int, outcome: Outcome) -> None:
        """Both halves of [first, stop), which failed as a whole."""
        middle = (first + stop) // 2
        for low, high in ((first, middle), (middle, stop)):
            try:
                outcome.pieces.append(self._call(records, low, high))
                self._ok = True
                continue
            except (Exception, SystemExit) as error:
                if high - low == 1:
                    outcome.failed[low] = _failure(error, attempts + 1, self._model.folders)
            if high - low > 1:  # outside of the handler, or each error would drag those before it along
                self._bisect(records, low, high, attempts + 1, outcome)

    def _hopeless(self) -> bool:
        return not self._ok and self._failed >= HOPELESS_AFTER

    def _works(self, records: Records, first: int) -> bool:
        """Whether the first record alone gets a prediction: then the model is not hopeless after all."""
        try:
            self._call(records, first, first + 1)
        except (Exception, SystemExit):
            return False
        return True

    def _call(self, records: Records, first: int, stop: int, *, again: bool = True) -> Piece:
        self._board.predict(self._place.window(first, stop - first, self._limit_s(stop - first)))
        items = records.fresh(first, stop) if again else records.items(first, stop)
        try:
            batch = convert(items, self._model.shape)
        except (ValueError, TypeError) as error:
            raise CannotConvert(f"the records cannot be made a batch of {self._model.shape}: {error}") from error
        return Piece(first, stop, checked(self._model.call(batch), stop - first))

    def _limit_s(self, count: int) -> float:
        """A call may take the limit of a record, and for more of them what they have been seen to take, four times
        over.
        """
        if not self._timeout_s:
            return 0.0
        return self._timeout_s + (4 * count * self._sizer.record_s if count > 1 else 0.0)

    def _one_by_one(self, records: Records, first: int, stop: int) -> Outcome:
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


def _failure(error: BaseException, attempts: int, folders: tuple[str, ...]) -> Failure:
    fault = "model_error"
    if isinstance(error, WrongLength):
        fault = "wrong_length"
    elif isinstance(error, CannotConvert):
        fault = "decode_error"
    elif isinstance(error, MemoryError):
        fault = "out_of_memory"
    trace = traceback.format_exception(type(error), error, _users_own(error.__traceback__), limit=-_TRACE_FRAMES)
    text = "".join(trace)
    for folder in folders:
        text = text.replace(f'File "{folder}/', 'File "')
    return Failure(fault, type(error).__name__, str(error), text, attempts)


def _users_own(trace: Any) -> Any:
    """The traceback from the first frame on that is not this package's."""
    here = trace
    while here is not None and here.tb_frame.f_globals.get("__name__", "").startswith("tidemill_runtime"):
        here = here.tb_next
    return here or trace
